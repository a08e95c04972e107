"""A scripted language model behind a port of this machine: python bench/_llm_server.py SHARE_OF_FAULTS

It answers after 100 ms, by OpenAI's interface and by Anthropic's, says its port on standard output, and ends when standard input is closed.
Only the standard library, so that it starts at once and nothing slows it down.
"""
import asyncio, contextlib, json, os, random, re, sys
from collections import Counter

LATENCY = .1  # seconds
FAULTS = {"429": "too many requests", "500": "broken", "late": "silent for longer than the limit", "cut": "half a JSON body",
          "html": "a page", "nonsense": "a text without an explanation"}  # what goes wrong, and in words


class Script:
    "Answers requests after 100 ms, on asyncio alone: both interfaces, faults by a fixed draw, and a count of what is in hand."

    def __init__(self, faulty: float): self.faulty, self.now, self.most, self.asked, self.told = faulty, 0, 0, 0, Counter()

    async def serve(self, reader, writer) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int((re.search(rb"content-length: (\d+)", head, re.I) or [0, 0])[1])
                body = json.loads(await reader.readexactly(size)) if size else {}
                path = head.split()[1].decode()
                if path == "/count": answer = {"most": self.most, "asked": self.asked, "told": self.told}, 200, {}
                else:
                    self.now += 1
                    self.most = max(self.most, self.now)
                    try: answer = await self.answer(body, path)
                    finally: self.now -= 1
                data = answer[0].encode() if isinstance(answer[0], str) else json.dumps(answer[0]).encode()
                lines = {"Content-Type": "application/json", "Content-Length": len(data), **answer[2]}
                said = "".join(f"{k}: {v}\r\n" for k, v in lines.items())
                writer.write(f"HTTP/1.1 {answer[1]} X\r\n{said}\r\n".encode() + data)
                await writer.drain()
        writer.close()

    async def answer(self, body: dict, path: str) -> tuple:
        n, self.asked = self.asked, self.asked + 1
        draw = random.Random(1000 + n)
        fault = draw.choice(list(FAULTS)) if draw.random() < self.faulty else None
        question = body["messages"][-1]["content"]
        if "cursed" in question: return {"error": {"message": "no"}}, 400, {}
        if fault: self.told[fault] += 1
        await asyncio.sleep(LATENCY + 2 * (fault == "late"))
        if fault == "429": return {"error": {"message": "slow down"}}, 429, {"Retry-After": "0.2"}
        if fault == "500": return {"error": {"message": "oops"}}, 500, {}
        if fault == "cut": return '{"id": "c", "choi', 200, {}
        if fault == "html": return "<html>", 200, {"Content-Type": "text/html"}
        words = " ".join(re.findall("«(.+?)»", question.partition("<texts>")[2])[:3]) or question
        said = "{}" if fault == "nonsense" else json.dumps({"explanation": f"the words {words}", "confidence": .9})
        if path.endswith("messages"):
            return {"id": "m", "type": "message", "role": "assistant", "model": "scripted", "content": [{"type": "text", "text": said}],
                    "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 7, "output_tokens": 2}}, 200, {}
        return {"id": "c", "object": "chat.completion", "created": 0, "model": "scripted",
                "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}]}, 200, {}


async def scripted(faulty: float) -> None:
    "The server's process: say the port, and serve until the parent closes our stdin."
    server = await asyncio.start_server(Script(faulty).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)


if __name__ == "__main__": asyncio.run(scripted(float(sys.argv[1])))
