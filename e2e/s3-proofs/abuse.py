"""Everything that clients do to a server by accident or on purpose, at once, while others use it.

`abuse.py`: from the environment E2E_ENDPOINTS (the first one is abused), E2E_PIDS (of their processes, with commas) and
what s3wire.py wants. Prints what the others met, when those who misbehave were dropped, and the node's memory;
exits with 0 if nobody else was disturbed, all limits held, and memory stayed within MOST_MORE and was flat.

Each good request has DEADLINE, which says that it is answered at all; the times are printed, and judged by nobody.
"""

import asyncio
import os
import random
import statistics
import sys
import time

from s3wire import Connection, allow_connections, presigned

ENDPOINTS = os.environ["E2E_ENDPOINTS"].split(",")
PIDS = [int(pid) for pid in os.environ["E2E_PIDS"].split(",")]
TARGET = ENDPOINTS[0]
KIB, MIB = 1 << 10, 1 << 20

# Of a good request, and only to tell late from never: all of this may have to share one busy core. The node lets one wait a
# minute for its turn, then says `SlowDown`, and one comes again.
DEADLINE = 90
GOOD_CLIENTS = 6
QUIET = 6
STORM = 75
# How much later than documented a connection may be seen to end: this process has thousands of others to serve.
GRACE = 20
# Documented, in docs/s3.md: who sends no request, or less than 16 KiB of a body, in so many seconds is dropped.
IDLE = 30
# The node's connections at most, and how many of them are tried for.
CONNECTIONS = 4096
CROWD = 4600

# MiB that the abused node may have more than before. What its bounds come to, all used up at once by those who misbehave:
# 128 downloads that pause (54), what 16 gets read ahead (70), 16 uploads with a chunk each and 8 on their way (96), XML
# as it is parsed (50), heads (20), and half of that again for what the allocator does not give back. It was 350 when this was written.
MOST_MORE = 440
# MiB by which it may still grow once all of them have been there for a third of the time: it is to be flat.
MOST_GROWTH = 64

failures = []
ended = {}


def fail(what):
    if len(failures) < 50:
        failures.append(what)


def say(what):
    print(what, flush=True)


def memory(pid, field="VmRSS"):
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


# --- who uses the node well

BODY = random.Random(1).randbytes(8 * MIB)


class Good:
    """A client that puts, gets and lists, and expects what it is promised."""

    times = {}
    again = 0

    def __init__(self, number):
        self.number, self.connection, self.count = number, None, 0

    async def call(self, what, method, path, query=(), body=b""):
        began = time.monotonic()
        try:
            async with asyncio.timeout(DEADLINE):
                answer = await self.once_more(method, path, query, body)
                # All SDKs try again when they are told to, and wait for longer.
                while answer.status == 503 and b"<Code>SlowDown</Code>" in answer.body:
                    Good.again += 1
                    await asyncio.sleep(0.1)
                    answer = await self.once_more(method, path, query, body)
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            self.leave()
            fail(f"{what}: {type(error).__name__} {error} after {time.monotonic() - began:.1f} s")
            return None
        self.times.setdefault(what, []).append(time.monotonic() - began)
        if answer.status not in (200, 204):
            fail(f"{what}: {answer}")
        return answer

    async def once_more(self, method, path, query, body):
        """On the connection there is. One that was idle may have been closed meanwhile: then on another."""
        target = presigned(TARGET, method, path, query)
        if self.connection:
            try:
                return await self.connection.request(method, target, body=body)
            except (OSError, EOFError):
                self.leave()
        self.connection = await Connection.open(TARGET)
        return await self.connection.request(method, target, body=body)

    def leave(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    async def round(self):
        self.count += 1
        if self.count % 4 == 0:
            self.leave()
        for what, size in (("1 KiB", KIB), ("200 KiB", 200 * KIB)):
            path = f"/default/good/{self.number}/{what}"
            start = random.randrange(len(BODY) - size)
            body = BODY[start : start + size]
            await self.call(f"put {what}", "PUT", path, body=body)
            answer = await self.call(f"get {what}", "GET", path)
            if answer and answer.status == 200 and answer.body != body:
                fail(f"get {what}: other bytes than were put")
        query = [("list-type", "2"), ("prefix", f"good/{self.number}/")]
        answer = await self.call("list", "GET", "/default", query)
        if answer and answer.body.count(b"<Key>") != 2:
            fail(f"list: {answer}")

        gone = f"good/{self.number}/gone"
        await self.call("put 1 KiB", "PUT", f"/default/{gone}", body=BODY[:KIB])
        names = f"<Delete><Object><Key>{gone}</Key></Object></Delete>".encode()
        answer = await self.call("delete", "POST", "/default", [("delete", "")], names)
        if answer and b"<Deleted>" not in answer.body:
            fail(f"delete: {answer}")

    async def go_on(self, until):
        while not until.is_set():
            await self.round()
            await asyncio.sleep(0.05)
        self.leave()


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] * 1000


def report(title):
    say(title)
    for what, values in sorted(Good.times.items()):
        p50, p99 = statistics.median(values) * 1000, percentile(values, 0.99)
        say(f"    {what:<12} {len(values):>5} answered, p50 {p50:>7.1f} ms, p99 {p99:>7.1f} ms")
    if Good.again:
        say(f"    {Good.again} times one was told to slow down, and came again")
    Good.times.clear()
    Good.again = 0


# --- who does not: each returns when the server has ended it, or says that it need not be ended


async def ends(name, connection, within, sending=None):
    """The server must end this connection; notes after how long."""
    began = time.monotonic()
    sender = asyncio.ensure_future(sending) if sending else None
    try:
        await asyncio.wait_for(connection.closed(), within + GRACE)
        ended.setdefault(name, []).append(time.monotonic() - began)
    except asyncio.TimeoutError:
        fail(f"{name}: not dropped after {within + GRACE} s")
    finally:
        if sender:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        connection.close()


async def trickle(connection, data, pause):
    """Sends bytes one by one, for ever."""
    try:
        while True:
            for byte in data:
                await connection.send(bytes([byte]))
                await asyncio.sleep(pause)
    except OSError:
        pass


async def flood(connection, data):
    """Sends the same again and again, until the server has enough."""
    try:
        while True:
            await connection.send(data)
    except OSError:
        pass


async def idle():
    await ends("idle", await Connection.open(TARGET), IDLE)


async def idle_after_a_request():
    connection = await Connection.open(TARGET)
    answer = await connection.request("GET", "/health")
    if answer.status != 200:
        fail(f"/health: {answer}")
    await ends("idle after a request", connection, IDLE)


async def slow_head():
    connection = await Connection.open(TARGET)
    await ends("slow heads", connection, IDLE, trickle(connection, b"GET / HTTP/1.1\r\nhost: a\r\n" + b"a: b\r\n" * 999, 0.5))


async def half_a_head():
    """As much as is taken, and then nothing."""
    connection = await Connection.open(TARGET)
    head = b"GET / HTTP/1.1\r\nhost: a\r\nbomb: " + b"b" * (31 * KIB)
    await ends("half heads of 31 KiB", connection, IDLE, connection.send(head))


async def slow_put(number):
    """Enough for a place among the uploads, and then next to nothing."""
    connection = await Connection.open(TARGET)
    target = presigned(TARGET, "PUT", f"/default/slow/{number}")
    await connection.send(connection.head("PUT", target, [("content-length", 10 * MIB)]) + bytes(80 * KIB))
    await ends("slow puts", connection, 2 * IDLE, trickle(connection, b"s", 0.2))


async def half_a_put(number):
    """Declares what no object can be, or what could be."""
    connection = await Connection.open(TARGET)
    target = presigned(TARGET, "PUT", f"/default/half/{number}")
    length = 10 * MIB if number % 4 else 10**18
    await connection.send(connection.head("PUT", target, [("content-length", length)]) + bytes(80 * KIB))
    await ends("puts that stop", connection, 2 * IDLE)


async def slow_xml():
    connection = await Connection.open(TARGET)
    target = presigned(TARGET, "POST", "/default", [("delete", "")])
    await connection.send(connection.head("POST", target, [("content-length", MIB)]))
    await ends("slow XML", connection, 2 * IDLE, trickle(connection, b"<Delete>" + b" " * MIB, 0.5))


async def slow_reader(pace):
    """Asks for more than the kernel buffers, and reads at this many bytes a second; none at all if it is 0. A paused
    player does the same: it need not be dropped, but nobody may wait for it."""
    connection = await Connection.open(TARGET, receive_buffer=4 * KIB)
    try:
        await connection.send(connection.head("GET", presigned(TARGET, "GET", "/default/big")))
        while pace:
            if not await connection.reader.read(pace // 4):
                return
            await asyncio.sleep(0.25)
        await asyncio.sleep(2 * STORM)
    except OSError:
        # There are more than may pause at once: this one made room.
        pass
    finally:
        connection.close()


async def huge_xml(number):
    """As large as is taken: a list of keys that is not one for `DeleteObjects`."""
    connection = await Connection.open(TARGET)
    target = presigned(TARGET, "POST", "/default", [("delete", "")])
    entry = b"<Object><Key>k</Key></Object>"
    body = b"<Delete>" + entry * ((8 * MIB - 100) // len(entry)) + b"</Delete>"
    try:
        answer = await asyncio.wait_for(connection.request("POST", target, body=body), STORM)
        if answer.status < 400:
            fail(f"huge XML: {answer}")
    except OSError:
        pass
    finally:
        connection.close()


# What is sent in one piece, and must be refused or end the connection.
PUT = presigned(TARGET, "PUT", "/default/bomb")
POST = presigned(TARGET, "POST", "/default", [("delete", "")])


def put_with(headers, body=b"xx"):
    lines = [f"PUT {PUT} HTTP/1.1", f"host: {TARGET.split('://')[1]}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


BOMBS = {
    "a header of 1 MiB": b"GET / HTTP/1.1\r\nhost: a\r\nbomb: " + b"b" * MIB + b"\r\n\r\n",
    "10,000 headers": b"GET / HTTP/1.1\r\nhost: a\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
    "a target of 1 MiB": b"GET /" + b"a" * MIB + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    "garbage": bytes(range(256)) * 300 + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 600,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 100,
    "a length of 21 digits": put_with([f"content-length: {10**20}"]),
    "a negative length": put_with(["content-length: -1"]),
    "two lengths": put_with(["content-length: 1", "content-length: 2"]),
    "a length and chunks": put_with(["content-length: 9", "transfer-encoding: chunked"], b"zz\r\n"),
    "a chunk of 17 digits": put_with(["transfer-encoding: chunked"], b"f" * 17 + b"\r\n"),
    "garbage after a request": b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n" + b"\x00\xff\r\n" * 999 + b"\r\n\r\n",
    "XML of 9 MiB": (
        f"POST {POST} HTTP/1.1\r\nhost: {TARGET.split('://')[1]}\r\ncontent-length: {9 * MIB}\r\n\r\n".encode() + b"<" * 9 * MIB
    ),
}
XML_BOMBS = {
    "elements a million deep": b"<Delete>" + b"<a>" * 1_000_000,
    "entities of entities": b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">'
    + b"".join(b'<!ENTITY %c "%s">' % (c + 1, b"&%c;" % c * 10) for c in range(98, 110))
    + b"]><Delete><Object><Key>&n;</Key></Object></Delete>",
}
ENDLESS = {
    "endless chunk extensions": (b"5;", b"e" * 4096),
    "endless trailers": (b"0\r\n", b"trailer: t\r\n" * 300),
    "endless zeros of a chunk's length": (b"", b"0" * 4096),
}

# Types of content that some parsers take for a form's, and others don't: nobody may hold the file in memory.
FORMS = ["multipart/form-data+x; boundary=b", 'multipart/form-data; boundary=b; a="\u00e9"', "multipart/form-data; boundary=b"]


async def bomb(name, data):
    connection = await Connection.open(TARGET)
    try:
        await connection.send(data)
        head = await asyncio.wait_for(connection.reader.readline(), IDLE + GRACE)
        # Garbage may follow a request that is answered.
        if head and head.split()[1][0:1] not in (b"4", b"5") and not data.startswith(b"GET /health"):
            fail(f"{name}: {head!r}")
        await asyncio.wait_for(connection.closed(), IDLE + GRACE)
    except OSError:
        pass
    except asyncio.TimeoutError:
        fail(f"{name}: neither refused nor dropped in time")
    finally:
        connection.close()


async def xml_bomb(name, body):
    connection = await Connection.open(TARGET)
    try:
        answer = await asyncio.wait_for(connection.request("POST", POST, body=body), IDLE + GRACE)
        if answer.status // 100 != 4 and b"SlowDown" not in answer.body:
            fail(f"{name}: {answer}")
    except OSError:
        pass
    except asyncio.TimeoutError:
        fail(f"{name}: not refused in time")
    finally:
        connection.close()


async def endless(name, before, again):
    connection = await Connection.open(TARGET)
    # That it is read at all takes a signature that holds.
    target = presigned(TARGET, "PUT", "/default/bomb")
    await connection.send(connection.head("PUT", target, [("transfer-encoding", "chunked")]) + before)
    await ends(name, connection, IDLE, flood(connection, again))


async def endless_form(kind):
    """Of a stranger, with a file that does not end."""
    connection = await Connection.open(TARGET)
    lines = ["POST /any HTTP/1.1", f"host: {TARGET.split('://')[1]}", f"content-type: {kind}", f"content-length: {10**12}"]
    field = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    await connection.send(("\r\n".join(lines) + "\r\n\r\n").encode() + field)
    await ends("endless forms", connection, IDLE, flood(connection, bytes(256 * KIB)))


async def pipeline():
    """Ten thousand requests, and no answer is read."""
    connection = await Connection.open(TARGET, receive_buffer=4 * KIB)
    request = connection.head("GET", "/metrics")
    try:
        await connection.send(request * 10_000)
        await asyncio.sleep(2 * STORM)
    except OSError:
        pass
    finally:
        connection.close()


async def bombs(until):
    """One after the other, again and again."""
    count = 0
    while not until.is_set():
        await asyncio.gather(*(bomb(name, data) for name, data in BOMBS.items()))
        await asyncio.gather(*(xml_bomb(name, body) for name, body in XML_BOMBS.items()))
        count += len(BOMBS) + len(XML_BOMBS)
        await asyncio.sleep(1)
    say(f"    {count} bombs were refused")


async def opened(count, make):
    """So many of them, not all in one moment: the kernel's queue of a listener is short."""
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(make(number)))
        if number % 50 == 49:
            await asyncio.sleep(0.02)
    return tasks


# --- the course of it


class Memory:
    """What the abused node has, looked at all the time."""

    def __init__(self):
        self.before, self.most = memory(PIDS[0]), 0
        self.task = asyncio.create_task(self.watch())

    async def watch(self):
        while True:
            self.most = max(self.most, memory(PIDS[0]))
            await asyncio.sleep(0.2)

    def judge(self, what):
        more = self.most - self.before
        say(f"    the node's memory: {self.before:.0f} MiB before, {self.most:.0f} MiB at most ({what})")
        if more > MOST_MORE:
            fail(f"{what}: {more:.0f} MiB more memory, {MOST_MORE} are allowed")
        self.most = 0


async def storm(memory):
    over = asyncio.Event()
    good = [asyncio.create_task(Good(number).go_on(over)) for number in range(GOOD_CLIENTS)]
    groups = [
        (700, lambda _: idle()),
        (300, lambda _: idle_after_a_request()),
        (200, lambda _: slow_head()),
        (400, lambda _: half_a_head()),
        (40, slow_put),
        (40, half_a_put),
        (20, lambda _: slow_xml()),
        (16, huge_xml),
    ]
    # Who need not be dropped while this lasts.
    patient = [(200, lambda _: slow_reader(0)), (60, lambda _: slow_reader(8 * KIB)), (10, lambda _: pipeline())]
    tasks = [asyncio.create_task(bombs(over))]
    tasks += [asyncio.create_task(endless(name, *parts)) for name, parts in ENDLESS.items()]
    tasks += [asyncio.create_task(endless_form(kind)) for kind in FORMS]
    for count, make in groups:
        tasks += await opened(count, make)
    staying = []
    for count, make in patient:
        staying += await opened(count, make)
    await asyncio.sleep(STORM / 3)
    soon = memory.most
    await asyncio.sleep(STORM * 2 / 3)
    over.set()
    await asyncio.gather(*good)
    report(f"beside {sum(count for count, _ in groups + patient)} who idle, trickle, stop or send bombs")
    for task in staying:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, *staying, return_exceptions=True):
        if isinstance(outcome, Exception):
            fail(f"this script: {outcome!r}")
    for name, times in sorted(ended.items()):
        say(f"    {name}: {len(times)} dropped, after {min(times):.0f} to {max(times):.0f} s")
    say(f"    the node's memory was {soon:.0f} MiB at most in the first third of this")
    if memory.most - soon > MOST_GROWTH:
        fail(f"memory grew on and on, by {memory.most - soon:.0f} MiB; {MOST_GROWTH} are allowed")
    memory.judge("storm")


async def crowd(memory):
    """More connections than there may be, all in silence: others get theirs all the same."""
    over = asyncio.Event()
    good = [asyncio.create_task(Good(number).go_on(over)) for number in range(GOOD_CLIENTS)]
    silent, most = [], 0
    for number in range(CROWD):
        silent.append(await Connection.open(TARGET))
        if number % 100 == 0:
            most = max(most, await metric("pando_http_connections"))
    say(f"    {CROWD} connections made, at most {most:.0f} were open at once")
    if not CONNECTIONS * 0.9 < most <= CONNECTIONS:
        fail(f"{most:.0f} connections at once: {CONNECTIONS} may be")
    await asyncio.gather(*(ends("a crowd", one, IDLE) for one in silent))
    over.set()
    await asyncio.gather(*good)
    times = ended["a crowd"]
    say(f"    {len(times)} were dropped, after {min(times):.0f} to {max(times):.0f} s of it")
    report(f"beside {CROWD} connections that say nothing")
    memory.judge("crowd")


async def metric(name):
    connection = await Connection.open(TARGET)
    page = (await connection.request("GET", "/metrics")).body.decode()
    connection.close()
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(f"{name} "))


async def run():
    allow_connections(CROWD + 2000)
    setup = Good(99)
    big = b"".join(BODY[shift:] + BODY[:shift] for shift in range(4))
    await setup.call("put 32 MiB", "PUT", "/default/big", body=big)
    # What a node has once it has been used is no growth.
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(QUIET, over.set)
    await asyncio.gather(*(Good(number).go_on(over) for number in range(GOOD_CLIENTS)))
    Good.times.pop("put 32 MiB", None)
    report("alone")
    watch = Memory()
    await storm(watch)
    await crowd(watch)
    await asyncio.sleep(3)
    after = memory(PIDS[0])
    peaks = ", ".join(f"{memory(pid, 'VmHWM'):.0f}" for pid in PIDS)
    say(f"memory afterwards: {after:.0f} MiB; the nodes' at their peaks: {peaks} MiB")
    watch.task.cancel()


asyncio.run(run())
for failure in failures:
    say(f"FAILED: {failure}")
sys.exit(1 if failures else 0)
