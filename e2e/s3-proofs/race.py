"""A hundred conditional puts of one key at once, through three nodes: exactly one may succeed.

Every request but its last byte is with its node before the last bytes leave, all in one go. From the environment:
E2E_ENDPOINTS (three URLs, with commas) and what s3wire.py wants. One line a round; exits with 0 if all held.
"""

import asyncio
import collections
import os
import sys
import time

from s3wire import Connection, allow_connections, presigned

ENDPOINTS = os.environ["E2E_ENDPOINTS"].split(",")
RACERS = 100
ROUNDS = 6
# For all hundred: the nodes of a test may share a busy machine with others.
DEADLINE = 60


async def race(path, condition, body_of):
    """Their answers, by who sent them."""
    connections = await asyncio.gather(*(Connection.open(ENDPOINTS[who % 3]) for who in range(RACERS)))

    async def all_but_the_last(who, connection):
        target = presigned(connection.endpoint, "PUT", path)
        body = body_of(who)
        await connection.send(connection.head("PUT", target, [condition, ("content-length", len(body))]) + body[:-1])

    await asyncio.gather(*(all_but_the_last(who, connection) for who, connection in enumerate(connections)))
    for who, connection in enumerate(connections):
        connection.writer.write(body_of(who)[-1:])
    answers = await asyncio.wait_for(asyncio.gather(*(one.answer("PUT") for one in connections)), DEADLINE)
    for connection in connections:
        connection.close()
    return answers


async def read(endpoint, path):
    connection = await Connection.open(endpoint)
    answer = await connection.request("GET", presigned(endpoint, "GET", path))
    connection.close()
    return answer


async def run():
    allow_connections(200)
    etag = None
    for number in range(ROUNDS):
        # A key anew, then the version that won just now; in the record itself, then in chunks of its own.
        path = f"/default/race/{number // 2}"
        condition = ("if-match", etag) if number % 2 else ("if-none-match", "*")
        size = 100 if number < ROUNDS // 2 else 100_000

        def body_of(who):
            return f"round {number} racer {who} ".encode().ljust(size, b".")

        began = time.monotonic()
        answers = await race(path, condition, body_of)
        statuses = collections.Counter(answer.status for answer in answers)
        took = time.monotonic() - began
        print(f"{condition[0]}, {size} bytes: {dict(statuses)} ({took:.1f}s)", flush=True)
        if statuses != {200: 1, 412: RACERS - 1}:
            others = [str(answer) for answer in answers if answer.status not in (200, 412)]
            sys.exit(f"one 200 and {RACERS - 1} times 412 were to be: {others[:3]}")
        winner = next(who for who, answer in enumerate(answers) if answer.status == 200)
        etag = answers[winner].headers["etag"]
        for endpoint in ENDPOINTS:
            got = await read(endpoint, path)
            if got.status != 200 or got.body != body_of(winner) or got.headers["etag"] != etag:
                sys.exit(f"{endpoint} does not give what racer {winner} put: {got}")


asyncio.run(run())
