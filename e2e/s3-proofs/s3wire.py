"""S3 by hand: presigned URLs (AWS Signature Version 4), and HTTP/1.1 over asyncio, with the standard library only.

Who races or abuses a server decides over every byte and when it leaves, which no S3 library lets one do. From the
environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
"""

import asyncio
import datetime
import hashlib
import hmac
import os
import resource
import socket
import urllib.parse

KEY = os.environ["AWS_ACCESS_KEY_ID"]
SECRET = os.environ["AWS_SECRET_ACCESS_KEY"]
REGION = "us-east-1"


def sign(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def presigned(endpoint, method, path, query=(), expires=3600):
    """What stands in a request's first line: path and query of one that may be sent to `endpoint` for a while."""
    now = datetime.datetime.now(datetime.timezone.utc)
    stamp, date = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    scope = f"{date}/{REGION}/s3/aws4_request"
    pairs = [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", f"{KEY}/{scope}"),
        ("X-Amz-Date", stamp),
        ("X-Amz-Expires", str(expires)),
        ("X-Amz-SignedHeaders", "host"),
        *query,
    ]
    quote = urllib.parse.quote
    path = quote(path, safe="/~")
    query = "&".join(sorted(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs))
    canonical = "\n".join([method, path, query, f"host:{address(endpoint)}\n", "host", "UNSIGNED-PAYLOAD"])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signing = f"AWS4{SECRET}".encode()
    for part in (date, REGION, "s3", "aws4_request"):
        signing = sign(signing, part)
    return f"{path}?{query}&X-Amz-Signature={sign(signing, to_sign).hex()}"


def address(endpoint):
    return endpoint.split("://")[1].rstrip("/")


def allow_connections(count):
    """Lets this process have so many open, or says why it can't."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < count:
        raise SystemExit(f"needs {count} open files, but the limit is {most}: raise it (`ulimit -Hn`)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def __str__(self):
        return f"{self.status} {self.body[:300].decode(errors='replace')}"


class Connection:
    """One connection. Whoever wants to misbehave has its `reader` and `writer`."""

    def __init__(self, endpoint, reader, writer):
        self.endpoint, self.reader, self.writer = endpoint, reader, writer

    @classmethod
    async def open(cls, endpoint, receive_buffer=None):
        host, port = address(endpoint).rsplit(":", 1)
        plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            plain.setblocking(False)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if receive_buffer:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await asyncio.get_running_loop().sock_connect(plain, (host, int(port)))
            # asyncio's own buffer, too, is to be no excuse for a server that sends on and on.
            limit = receive_buffer or 1 << 16
            reader, writer = await asyncio.open_connection(sock=plain, limit=limit)
        except BaseException:
            plain.close()
            raise
        return cls(endpoint, reader, writer)

    def head(self, method, target, headers=()):
        lines = [f"{method} {target} HTTP/1.1", f"host: {address(self.endpoint)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def request(self, method, target, headers=(), body=b""):
        length = [("content-length", len(body))] if body or method in ("PUT", "POST") else []
        await self.send(self.head(method, target, [*headers, *length]) + body)
        return await self.answer(method)

    async def answer(self, method="GET"):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in head[1:]:
            name, colon, value = line.partition(":")
            if colon:
                headers[name.lower()] = value.strip()
        status = int(head[0].split(" ")[1])
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = await self.chunks()
        else:
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(status, headers, body)

    async def chunks(self):
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readline()
        return body

    async def closed(self):
        """Returns once the server has closed, whatever it sent before."""
        try:
            while await self.reader.read(1 << 16):
                pass
        except OSError:
            pass

    def close(self):
        # At once: what was not sent is not to be, and nothing is waited for.
        self.writer.transport.abort()
