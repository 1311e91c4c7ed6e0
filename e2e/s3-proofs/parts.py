"""One large object: `parts.py put` sends its parts at once through several nodes, `parts.py get` reads all of it by
ranges from one, with boto3 and with curl, and compares every byte.

From the environment: E2E_ENDPOINTS (URLs, with commas), E2E_SIZE in bytes, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
The content is drawn from a seed and never stored: no 64 KiB of it are the same, and each is known by its place.
"""

import concurrent.futures
import hashlib
import os
import random
import subprocess
import sys
import time

import boto3
from botocore.config import Config

ENDPOINTS = os.environ["E2E_ENDPOINTS"].split(",")
SIZE = int(os.environ["E2E_SIZE"])
AT = dict(Bucket="default", Key="large")
MIB = 1 << 20
PART = 16 * MIB
# No multiple of anything: ranges begin and end amid segments, chunks and parts.
RANGE = 23 * MIB + 4567
AT_ONCE_TO_A_NODE = 4
RANGES_AT_ONCE = 6
SEGMENT = 64 << 10
NOISE = random.Random(5).randbytes(4 * MIB)


def content(start, end):
    """The bytes of the object from `start` up to `end`."""
    first = start // SEGMENT
    pieces = []
    for number in range(first, (end + SEGMENT - 1) // SEGMENT):
        place = number * SEGMENT % len(NOISE)
        pieces += [b"segment %8d" % number, NOISE[place + 16 : place + SEGMENT]]
    skip = start - first * SEGMENT
    return b"".join(pieces)[skip : skip + end - start]


def connect(endpoint):
    config = Config(
        s3={"addressing_style": "path"},
        signature_version="s3v4",
        retries={"mode": "standard", "max_attempts": 3},
        read_timeout=120,
        max_pool_connections=32,
    )
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)


def rate(began):
    took = time.monotonic() - began
    return f"{took:.1f} s ({SIZE / MIB / took:.0f} MiB/s)"


def put():
    clients = [connect(endpoint) for endpoint in ENDPOINTS]
    upload = clients[0].create_multipart_upload(**AT)["UploadId"]
    count = (SIZE + PART - 1) // PART

    def send(index):
        body = content(index * PART, min(SIZE, (index + 1) * PART))
        client = clients[index % len(clients)]
        etag = client.upload_part(**AT, UploadId=upload, PartNumber=index + 1, Body=body)["ETag"]
        return etag, hashlib.md5(body).digest()

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE_TO_A_NODE * len(clients)) as pool:
        sent = list(pool.map(send, range(count)))
    print(f"{count} parts of {PART // MIB} MiB sent through {len(clients)} nodes in {rate(began)}")
    wrong = [index + 1 for index, (etag, md5) in enumerate(sent) if etag != f'"{md5.hex()}"']
    assert not wrong, f"the ETags of these parts are not their MD5: {wrong}"
    parts = [{"PartNumber": index + 1, "ETag": etag} for index, (etag, _) in enumerate(sent)]
    began = time.monotonic()
    # By another node than the one that began it.
    done = clients[-1].complete_multipart_upload(**AT, UploadId=upload, MultipartUpload={"Parts": parts})
    print(f"completed in {time.monotonic() - began:.2f} s")
    expected = hashlib.md5(b"".join(md5 for _, md5 in sent)).hexdigest()
    assert done["ETag"] == f'"{expected}-{count}"', f"the ETag is {done['ETag']}, should be {expected}-{count}"
    assert clients[0].head_object(**AT)["ContentLength"] == SIZE


def get():
    client = connect(ENDPOINTS[0])
    ranges = [(start, min(SIZE, start + RANGE)) for start in range(0, SIZE, RANGE)]
    url = client.generate_presigned_url("get_object", Params=AT, ExpiresIn=3600)

    def by_boto3(start, end):
        answer = client.get_object(**AT, Range=f"bytes={start}-{end - 1}")
        assert answer["ContentRange"] == f"bytes {start}-{end - 1}/{SIZE}", answer["ContentRange"]
        return answer["Body"].read()

    def by_curl(start, end):
        command = ["curl", "-sS", "--fail", "--max-time", "120", "--noproxy", "*", "-r", f"{start}-{end - 1}", url]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout

    def same(index):
        start, end = ranges[index]
        got = by_curl(start, end) if index % 4 == 3 else by_boto3(start, end)
        if got != content(start, end):
            raise AssertionError(f"bytes {start} to {end - 1} differ ({len(got)} came)")

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(RANGES_AT_ONCE) as pool:
        # Not in their order.
        list(pool.map(same, random.Random(7).sample(range(len(ranges)), len(ranges))))
    print(f"{len(ranges)} ranges read and the same, {RANGES_AT_ONCE} at once, in {rate(began)}")


{"put": put, "get": get}[sys.argv[1]]()
