/* Results quote the pages that they lead to. Sphinx fetches those pages for it, which a browser refuses to a page that was opened
   from a file; so on the search page, fetching one of our pages gives the text that search-texts.js holds of it. */
(() => {
  const root = new URL(document.documentElement.dataset.content_root, location.href).href;
  const fetched = window.fetch.bind(window);
  const packed = Uint8Array.from(atob(SearchTexts), (c) => c.charCodeAt(0));
  const texts = new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  window.fetch = async (url, ...rest) => {
    const name = new URL(url, location.href).href.replace(root, "").split("#")[0], known = await texts;
    if (!Object.hasOwn(known, name)) return fetched(url, ...rest);
    return new Response(`<div role="main">${known[name]}</div>`);
  };
})();
