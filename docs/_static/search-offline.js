/* Results quote the pages that they lead to. Sphinx fetches those pages for it, which a browser refuses to a page that was opened
   from a file; so on the search page, fetching one of our pages gives the text that search-texts.js holds of it. */
(() => {
  const root = new URL(document.documentElement.dataset.content_root, location.href).href;
  const fetched = window.fetch.bind(window);
  window.fetch = (url, ...rest) => {
    const name = new URL(url, location.href).href.replace(root, "").split("#")[0];
    if (!Object.hasOwn(SearchTexts, name)) return fetched(url, ...rest);
    return Promise.resolve(new Response(`<div role="main">${SearchTexts[name]}</div>`));
  };
})();
