"""What programs do with boto3, against a server: `boto3_steps.py [WORD]...` runs the steps whose title has one of the words.

From the environment: E2E_ENDPOINTS (three URLs of one network, with commas), AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
With E2E_LAX a step goes on after what did not hold, and lists all of it: to try this script on another server.
What is written through one endpoint is read through another. One line a step; exits with 0 only if all held. A step is
skipped only where the server answers NotImplemented to what a server may leave out.
"""

import base64
import concurrent.futures
import datetime
import hashlib
import io
import itertools
import os
import random
import sys
import threading
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
import uuid

import boto3
import botocore.httpchecksum
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINTS = os.environ["E2E_ENDPOINTS"].split(",")
KEY = os.environ["AWS_ACCESS_KEY_ID"]
SECRET = os.environ["AWS_SECRET_ACCESS_KEY"]
RUN = uuid.uuid4().hex[:8]
BUCKET = f"boto3-{RUN}"
MIB = 1 << 20
PART = 5 * MIB

LAX = bool(os.environ.get("E2E_LAX"))
STEPS = []
deviations = []


class Skip(Exception):
    """The server need not be able to do this, and says that it isn't."""


def step(title):
    def register(function):
        STEPS.append((title, function))
        return function

    return register


def connect(endpoint, key=KEY, secret=SECRET, region="us-east-1", **options):
    usual = dict(
        s3={"addressing_style": "path"},
        signature_version="s3v4",
        retries={"mode": "standard", "max_attempts": 3},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
    )
    config = Config(**(usual | options))
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name=region,
        config=config,
    )


A, B, C = (connect(endpoint) for endpoint in ENDPOINTS)


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


def short(value):
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) < 300 else f"{text[:300]}…"


def wrong(what):
    if not LAX:
        raise AssertionError(what)
    deviations.append((sys._getframe(2).f_lineno, what))


def equal(got, expected, what=""):
    if got != expected:
        wrong(f"{what}: got {short(got)}, expected {short(expected)}")


def read(client, key, bucket=BUCKET, **options):
    return client.get_object(Bucket=bucket, Key=key, **options)["Body"].read()


def code_of(error):
    return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]


def refused(codes, function, **arguments):
    """Must fail with one of these codes (or HTTP statuses, where there is no body)."""
    codes = codes if isinstance(codes, (list, tuple)) else [codes]
    try:
        answer = function(**arguments)
    except ClientError as error:
        code, status = code_of(error)
        if code not in codes and status not in codes:
            wrong(f"refused with {code} ({status}), not {codes}: {error}")
        return error
    wrong(f"succeeded, should be {codes}: {short(answer)}")
    return None


def optional(function, **arguments):
    try:
        return function(**arguments)
    except ClientError as error:
        code, status = code_of(error)
        if code == "NotImplemented" or status == 501:
            raise Skip(error.response["Error"].get("Message", code)) from error
        raise


def http(method, url, data=None, headers=None):
    """(status, body, headers) of a request without boto3."""
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


@step("buckets: create, head, list, location, again")
def buckets():
    equal(BUCKET in [b["Name"] for b in B.list_buckets()["Buckets"]], True, "listed elsewhere")
    B.head_bucket(Bucket=BUCKET)
    equal(C.get_bucket_location(Bucket=BUCKET).get("LocationConstraint") in (None, "us-east-1"), True, "location")
    try:  # us-east-1 says yes to its owner, other regions BucketAlreadyOwnedByYou.
        C.create_bucket(Bucket=BUCKET)
    except ClientError as error:
        equal(code_of(error), ("BucketAlreadyOwnedByYou", 409), "created again")
    other = f"{BUCKET}-other"
    A.create_bucket(Bucket=other)
    B.put_object(Bucket=other, Key="x", Body=b"x")
    refused("BucketNotEmpty", C.delete_bucket, Bucket=other)
    C.delete_object(Bucket=other, Key="x")
    A.delete_bucket(Bucket=other)
    refused([404], B.head_bucket, Bucket=other)


@step("put and get: sizes around every limit")
def sizes():
    # 16 KiB are inline, 64 KiB a segment, 4 MiB a chunk.
    for size in (0, 1, 16384, 16385, 65536, 65537, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB):
        body = noise(size, size)
        put = A.put_object(Bucket=BUCKET, Key=f"size/{size}", Body=body)
        equal(put["ETag"], f'"{hashlib.md5(body).hexdigest()}"', f"ETag of {size}")
        got = B.get_object(Bucket=BUCKET, Key=f"size/{size}")
        equal(got["Body"].read() == body, True, f"content of {size}")
        head = C.head_object(Bucket=BUCKET, Key=f"size/{size}")
        equal((head["ContentLength"], head["ETag"]), (size, put["ETag"]), "head")


@step("keys: any characters, 1024 bytes, not 1025")
def keys():
    names = ["a b", "a+b", "a%20b", "a%2Fb", "ä/日本/😀", "<&>\"'", "a//b", "a/", "~!@#$^*()=;:,?[]{}|\\`", "x" * 1024, "a\tb"]
    for number, name in enumerate(names):
        A.put_object(Bucket=BUCKET, Key=f"k/{name}"[:1024], Body=str(number).encode())
    for number, name in enumerate(names):
        equal(read(B, f"k/{name}"[:1024]), str(number).encode(), name)
    listed = [o["Key"] for page in C.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="k/") for o in page["Contents"]]
    equal(listed, sorted((f"k/{name}"[:1024] for name in names), key=str.encode), "listed in order of bytes")
    refused(["KeyTooLongError", 400], A.put_object, Bucket=BUCKET, Key="x" * 1025, Body=b"")


CORE_ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")


@step("checksums: each algorithm that boto3 can compute, right and wrong")
def checksums():
    body, skipped = noise(100_000), []
    for name in botocore.httpchecksum._SUPPORTED_CHECKSUM_ALGORITHMS:
        name = name.upper()
        field, key = f"Checksum{name}", f"checksum/{name}"
        try:
            put = A.put_object(Bucket=BUCKET, Key=key, Body=body, ChecksumAlgorithm=name)
        except ClientError as error:
            if name in CORE_ALGORITHMS:
                raise
            skipped.append(f"{name} ({code_of(error)[0]})")
            continue
        if name not in CORE_ALGORITHMS and field not in put:
            skipped.append(f"{name} (ignored)")
            continue
        head = B.head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
        equal(head.get(field), put[field], f"{name} of head")
        equal(field in B.head_object(Bucket=BUCKET, Key=key), False, f"{name} of head, not asked for")
        # boto3 verifies it while reading.
        equal(read(C, key, ChecksumMode="ENABLED") == body, True, name)
        zeros = base64.b64encode(bytes(len(base64.b64decode(put[field])))).decode()
        refused(
            ["BadDigest", "XAmzContentChecksumMismatch", "InvalidRequest"],
            A.put_object, Bucket=BUCKET, Key=f"{key}-wrong", Body=body, **{field: zeros},
        )
        refused([404], B.head_object, Bucket=BUCKET, Key=f"{key}-wrong")
    if skipped:
        print(f"        boto3: the server does not do {', '.join(skipped)}")


@step("checksums: Content-MD5, right and wrong")
def md5():
    body = noise(70_000)
    right = base64.b64encode(hashlib.md5(body).digest()).decode()
    A.put_object(Bucket=BUCKET, Key="md5", Body=body, ContentMD5=right)
    other = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    refused("BadDigest", A.put_object, Bucket=BUCKET, Key="md5", Body=b"x", ContentMD5=other)
    equal(read(B, "md5") == body, True, "what was there stays")


@step("checksums: a body whose SHA-256 is not what was signed")
def wrong_content():
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    url = f"{ENDPOINTS[0]}/{BUCKET}/tampered"
    request = AWSRequest("PUT", url, data=b"as signed", headers={"x-amz-content-sha256": hashlib.sha256(b"as signed").hexdigest()})
    S3SigV4Auth(Credentials(KEY, SECRET), "s3", "us-east-1").add_auth(request)
    status, body, _ = http("PUT", url, b"as ticked", dict(request.headers))
    equal((status, b"XAmzContentSHA256Mismatch" in body), (400, True), body)
    refused([404], B.head_object, Bucket=BUCKET, Key="tampered")


@step("checksums: aws-chunked with a trailer, as over TLS")
def trailer():
    """boto3 sends STREAMING-UNSIGNED-PAYLOAD-TRAILER over TLS only, other SDKs without it as well."""
    resolve = botocore.httpchecksum.resolve_request_checksum_algorithm

    def as_trailer(request, operation_model, *arguments, **options):
        resolve(request, operation_model, *arguments, **options)
        algorithm = request["context"].get("checksum", {}).get("request_algorithm")
        if isinstance(algorithm, dict) and operation_model.has_streaming_input:
            algorithm["in"] = "trailer"

    seen = []
    client = connect(ENDPOINTS[0])
    client.meta.events.register("before-send.s3", lambda request, **_: seen.append(str(request.headers.get("X-Amz-Content-SHA256"))))
    botocore.httpchecksum.resolve_request_checksum_algorithm = as_trailer
    try:
        for size, name in itertools.product((0, 1, 300_000, 5 * MIB), ("CRC32", "SHA256", "CRC64NVME")):
            body = noise(size)
            client.put_object(Bucket=BUCKET, Key="trailer", Body=io.BytesIO(body), ChecksumAlgorithm=name)
            head = B.head_object(Bucket=BUCKET, Key="trailer", ChecksumMode="ENABLED")
            equal(f"Checksum{name}" in head, True, f"{name} kept")
            equal(read(C, "trailer", ChecksumMode="ENABLED") == body, True, f"{size} with {name}")
        upload = client.create_multipart_upload(Bucket=BUCKET, Key="trailer-parts", ChecksumAlgorithm="CRC32")["UploadId"]
        at = dict(Bucket=BUCKET, Key="trailer-parts", UploadId=upload)
        part = client.upload_part(**at, PartNumber=1, Body=io.BytesIO(b"part"), ChecksumAlgorithm="CRC32")
        parts = [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}]
        client.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
        equal(read(B, "trailer-parts"), b"part")
    finally:
        botocore.httpchecksum.resolve_request_checksum_algorithm = resolve
    equal(any("STREAMING-UNSIGNED-PAYLOAD-TRAILER" in kind for kind in seen), True, f"sent {set(seen)}")


@step("Expect: 100-continue, then another request on the same connection")
def expect():
    """Files are sent only after `100 Continue`. A server may answer at once instead (to nothing at all, or to refuse);
    botocore then takes the next answer on the same connection for that same one, unless the connection is closed."""
    # One connection; it is not to repeat what failed.
    client = connect(ENDPOINTS[0], retries={"total_max_attempts": 1}, max_pool_connections=1, read_timeout=10)
    A.put_object(Bucket=BUCKET, Key="expect", Body=b"there")

    def put(key, body, **options):
        return client.put_object(Bucket=BUCKET, Key=key, Body=io.BytesIO(body), **options)

    etag = lambda body: f'"{hashlib.md5(body).hexdigest()}"'
    for number in range(3):
        body = noise(1000, number)
        equal(put("expect-empty", b"").get("ETag"), etag(b""), "nothing at all")
        equal(put("expect-next", body).get("ETag"), etag(body), "after nothing at all")
        refused("PreconditionFailed", put, key="expect", body=body, IfNoneMatch="*")
        equal(put("expect-next", body).get("ETag"), etag(body), "after one that was refused")
        refused("NoSuchBucket", client.put_object, Bucket=f"never-{RUN}", Key="x", Body=io.BytesIO(body))
        equal(client.head_object(Bucket=BUCKET, Key="expect-empty")["ContentLength"], 0, "another method")
    equal(read(B, "expect"), b"there")


@step("multipart: upload_fileobj, upload_file's parts in parallel")
def multipart():
    body = noise(17 * MIB + 3)
    config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4)
    A.upload_fileobj(io.BytesIO(body), BUCKET, "parts", Config=config, ExtraArgs={"ContentType": "x/y", "Metadata": {"a": "b"}})
    head = B.head_object(Bucket=BUCKET, Key="parts")
    digests = b"".join(hashlib.md5(body[at : at + PART]).digest() for at in range(0, len(body), PART))
    equal(head["ETag"], f'"{hashlib.md5(digests).hexdigest()}-4"', "ETag")
    equal((head["ContentLength"], head["ContentType"], head["Metadata"]), (len(body), "x/y", {"a": "b"}))
    got = io.BytesIO()
    C.download_fileobj(BUCKET, "parts", got, Config=config)
    equal(got.getvalue() == body, True, "content")
    for first, last in ((PART - 3, PART + 3), (0, 0), (len(body) - 1, len(body) - 1), (4 * MIB - 1, 12 * MIB)):
        equal(read(B, "parts", Range=f"bytes={first}-{last}") == body[first : last + 1], True, f"{first}-{last}")


@step("multipart: by hand, out of order, over three nodes, a part again, listed, completed")
def by_hand():
    upload = A.create_multipart_upload(Bucket=BUCKET, Key="by/hand")["UploadId"]
    at = dict(Bucket=BUCKET, Key="by/hand", UploadId=upload)
    bodies = {1: noise(PART, 1), 2: noise(PART, 2), 7: noise(1000, 7)}
    C.upload_part(**at, PartNumber=7, Body=bodies[7])
    B.upload_part(**at, PartNumber=1, Body=noise(PART, 99))
    etags = {number: client.upload_part(**at, PartNumber=number, Body=bodies[number])["ETag"]
             for number, client in ((2, A), (1, B), (7, C))}
    uploads = B.list_multipart_uploads(Bucket=BUCKET, Prefix="by/").get("Uploads", [])
    equal([(u["Key"], u["UploadId"]) for u in uploads], [("by/hand", upload)], "uploads")
    parts = C.list_parts(**at)["Parts"]
    equal([(p["PartNumber"], p["ETag"], p["Size"]) for p in parts], [(n, etags[n], len(bodies[n])) for n in (1, 2, 7)], "parts")
    page = A.list_parts(**at, MaxParts=1)
    equal((page["IsTruncated"], page["NextPartNumberMarker"]), (True, 1), "a page of parts")
    refused([404], A.head_object, Bucket=BUCKET, Key="by/hand")
    some = [{"PartNumber": n, "ETag": etags[n]} for n in (1, 7)]
    refused("InvalidPartOrder", A.complete_multipart_upload, **at, MultipartUpload={"Parts": some[::-1]})
    another = [{"PartNumber": 1, "ETag": '"00000000000000000000000000000000"'}]
    refused("InvalidPart", B.complete_multipart_upload, **at, MultipartUpload={"Parts": another})
    # Part 2 was uploaded and isn't wanted.
    done = C.complete_multipart_upload(**at, MultipartUpload={"Parts": some})
    equal(done["ETag"].endswith('-2"'), True, done["ETag"])
    equal(read(A, "by/hand") == bodies[1] + bodies[7], True, "content")
    equal(B.list_multipart_uploads(Bucket=BUCKET, Prefix="by/").get("Uploads", []), [], "uploads afterwards")
    refused("NoSuchUpload", B.upload_part, **at, PartNumber=1, Body=b"x")


@step("multipart: aborted; a part too small")
def aborted():
    upload = A.create_multipart_upload(Bucket=BUCKET, Key="aborted")["UploadId"]
    at = dict(Bucket=BUCKET, Key="aborted", UploadId=upload)
    etags = [A.upload_part(**at, PartNumber=n, Body=b"small")["ETag"] for n in (1, 2)]
    parts = [{"PartNumber": n + 1, "ETag": etag} for n, etag in enumerate(etags)]
    refused("EntityTooSmall", B.complete_multipart_upload, **at, MultipartUpload={"Parts": parts})
    C.abort_multipart_upload(**at)
    refused("NoSuchUpload", B.list_parts, **at)
    refused("NoSuchUpload", A.complete_multipart_upload, **at, MultipartUpload={"Parts": parts[:1]})
    refused([404], A.head_object, Bucket=BUCKET, Key="aborted")


@step("multipart: checksums of parts and of the whole (CRC64NVME full, CRC32 full, SHA256 composite)")
def checksums_of_parts():
    body = noise(PART + 1000)
    for name, kind in (("CRC64NVME", "FULL_OBJECT"), ("CRC32", "FULL_OBJECT"), ("SHA256", "COMPOSITE")):
        field, key = f"Checksum{name}", f"parts-{name}"
        upload = A.create_multipart_upload(Bucket=BUCKET, Key=key, ChecksumAlgorithm=name, ChecksumType=kind)["UploadId"]
        at = dict(Bucket=BUCKET, Key=key, UploadId=upload)
        parts = []
        for number, part in ((1, body[:PART]), (2, body[PART:])):
            answer = B.upload_part(**at, PartNumber=number, Body=part, ChecksumAlgorithm=name)
            parts.append({"PartNumber": number, "ETag": answer["ETag"], field: answer[field]})
        done = C.complete_multipart_upload(**at, MultipartUpload={"Parts": parts}, ChecksumType=kind)
        if kind == "COMPOSITE":
            digests = b"".join(base64.b64decode(part[field]) for part in parts)
            whole = base64.b64encode(hashlib.sha256(digests).digest()).decode() + "-2"
        else:
            whole = A.put_object(Bucket=BUCKET, Key=f"{key}-once", Body=body, ChecksumAlgorithm=name)[field]
        equal((done.get(field), done.get("ChecksumType")), (whole, kind), f"{name} of complete")
        head = A.head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
        equal((head.get(field), head.get("ChecksumType")), (whole, kind), f"{name} of head")
        equal(read(B, key, ChecksumMode="ENABLED") == body, True, "content")


@step("copy: same and other bucket, metadata kept and replaced, conditions, onto itself")
def copy():
    other = f"{BUCKET}-copies"
    A.create_bucket(Bucket=other)
    body = noise(5 * MIB)
    put = A.put_object(Bucket=BUCKET, Key="from ü+", Body=body, ContentType="text/x-a", Metadata={"k": "v"})
    source = {"Bucket": BUCKET, "Key": "from ü+"}
    result = B.copy_object(Bucket=other, Key="to", CopySource=source)["CopyObjectResult"]
    equal(result["ETag"], put["ETag"], "ETag")
    head = C.head_object(Bucket=other, Key="to")
    equal((head["ContentType"], head["Metadata"]), ("text/x-a", {"k": "v"}), "kept")
    equal(read(C, "to", other) == body, True, "content")
    B.copy_object(Bucket=BUCKET, Key="replaced", CopySource=source, MetadataDirective="REPLACE", ContentType="text/x-b", Metadata={"n": "w"})
    head = A.head_object(Bucket=BUCKET, Key="replaced")
    equal((head["ContentType"], head["Metadata"]), ("text/x-b", {"n": "w"}), "replaced")
    refused("InvalidRequest", A.copy_object, Bucket=BUCKET, Key="from ü+", CopySource=source)
    A.copy_object(Bucket=BUCKET, Key="from ü+", CopySource=source, MetadataDirective="REPLACE", Metadata={"z": "1"})
    equal(B.head_object(Bucket=BUCKET, Key="from ü+")["Metadata"], {"z": "1"}, "onto itself")
    refused("PreconditionFailed", A.copy_object, Bucket=BUCKET, Key="no", CopySource=source, CopySourceIfMatch='"0"')
    refused("PreconditionFailed", A.copy_object, Bucket=BUCKET, Key="no", CopySource=source, CopySourceIfNoneMatch=put["ETag"])
    refused("NoSuchKey", A.copy_object, Bucket=BUCKET, Key="no", CopySource={"Bucket": BUCKET, "Key": "never"})
    refused("NoSuchBucket", A.copy_object, Bucket=BUCKET, Key="no", CopySource={"Bucket": f"never-{RUN}", "Key": "x"})


@step("copy: parts, with ranges")
def copy_parts():
    body = noise(12 * MIB, 5)
    A.put_object(Bucket=BUCKET, Key="long", Body=body)
    config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)
    B.copy({"Bucket": BUCKET, "Key": "long"}, BUCKET, "long-copy", Config=config)
    equal(read(C, "long-copy") == body, True, "managed copy")
    upload = A.create_multipart_upload(Bucket=BUCKET, Key="pieces")["UploadId"]
    at = dict(Bucket=BUCKET, Key="pieces", UploadId=upload)
    first = B.upload_part_copy(**at, PartNumber=1, CopySource={"Bucket": BUCKET, "Key": "long"}, CopySourceRange=f"bytes=1000-{1000 + PART - 1}")
    second = C.upload_part(**at, PartNumber=2, Body=b"end")
    parts = [{"PartNumber": 1, "ETag": first["CopyPartResult"]["ETag"]}, {"PartNumber": 2, "ETag": second["ETag"]}]
    A.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
    equal(read(B, "pieces") == body[1000 : 1000 + PART] + b"end", True, "pieces")


MANY = 2500


@step(f"list: {MANY} keys in pages, prefixes, delimiters; delete_objects")
def many():
    names = [f"many/{n % 10}/{n:04}" for n in range(MANY)]
    clients = itertools.cycle((A, B, C))
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda pair: pair[0].put_object(Bucket=BUCKET, Key=pair[1], Body=b"."), zip(clients, names)))
    names.sort()
    for client, operation in ((A, "list_objects_v2"), (B, "list_objects")):
        pages = list(client.get_paginator(operation).paginate(Bucket=BUCKET, Prefix="many/"))
        equal([len(page["Contents"]) for page in pages], [1000, 1000, 500], f"{operation}: pages")
        equal([o["Key"] for page in pages for o in page["Contents"]] == names, True, f"{operation}: names")
    pages = C.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="many/3/", PaginationConfig={"PageSize": 7})
    equal([o["Key"] for page in pages for o in page["Contents"]], [n for n in names if n.startswith("many/3/")], "pages of 7")
    page = A.list_objects_v2(Bucket=BUCKET, Prefix="many/", Delimiter="/")
    equal([p["Prefix"] for p in page["CommonPrefixes"]], [f"many/{n}/" for n in range(10)], "prefixes")
    equal((page["KeyCount"], page.get("Contents", []), page["IsTruncated"]), (10, [], False))
    pages = list(B.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="many/", Delimiter="/", PaginationConfig={"PageSize": 3}))
    equal([p["Prefix"] for page in pages for p in page["CommonPrefixes"]], [f"many/{n}/" for n in range(10)], "prefixes in pages")
    page = C.list_objects_v2(Bucket=BUCKET, Prefix="many/", StartAfter="many/9/2479", MaxKeys=5)
    equal([o["Key"] for o in page["Contents"]], ["many/9/2489", "many/9/2499"], "start after")
    equal(C.list_objects_v2(Bucket=BUCKET, Prefix="many/", MaxKeys=0)["KeyCount"], 0, "no keys")
    refused("InvalidArgument", A.list_objects_v2, Bucket=BUCKET, ContinuationToken="garbage!")

    for client, start in zip((A, B, C), range(0, MANY, 1000)):
        batch = names[start : start + 1000]
        answer = client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": n} for n in batch], "Quiet": start > 0})
        equal(answer.get("Errors", []), [], "errors")
        equal(len(answer.get("Deleted", [])), 1000 if start == 0 else 0, "told")
    equal(B.list_objects_v2(Bucket=BUCKET, Prefix="many/")["KeyCount"], 0, "left")
    # Deleting what isn't there is no error.
    A.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "never"}]})
    A.delete_object(Bucket=BUCKET, Key="never")
    too_many = [{"Key": str(n)} for n in range(1001)]
    refused("MalformedXML", A.delete_objects, Bucket=BUCKET, Delete={"Objects": too_many})


@step("conditional: put If-None-Match and If-Match, through three nodes")
def conditional_put():
    one = A.put_object(Bucket=BUCKET, Key="if", Body=b"1", IfNoneMatch="*")["ETag"]
    for client in (A, B, C):
        refused("PreconditionFailed", client.put_object, Bucket=BUCKET, Key="if", Body=b"2", IfNoneMatch="*")
    two = B.put_object(Bucket=BUCKET, Key="if", Body=b"2", IfMatch=one)["ETag"]
    for client in (A, B, C):
        refused("PreconditionFailed", client.put_object, Bucket=BUCKET, Key="if", Body=b"3", IfMatch=one)
    C.put_object(Bucket=BUCKET, Key="if", Body=b"3", IfMatch=two)
    equal(read(A, "if"), b"3")
    refused(["NoSuchKey", "PreconditionFailed"], A.put_object, Bucket=BUCKET, Key="if-never", Body=b"3", IfMatch=two)
    upload = A.create_multipart_upload(Bucket=BUCKET, Key="if")["UploadId"]
    at = dict(Bucket=BUCKET, Key="if", UploadId=upload)
    part = {"PartNumber": 1, "ETag": A.upload_part(**at, PartNumber=1, Body=b"4")["ETag"]}
    refused("PreconditionFailed", B.complete_multipart_upload, **at, MultipartUpload={"Parts": [part]}, IfNoneMatch="*")
    equal(read(A, "if"), b"3")
    B.abort_multipart_upload(**at)


@step("conditional: of 12 that put If-None-Match: * at once on three nodes, one succeeds")
def race():
    for number in range(5):
        barrier = threading.Barrier(12)

        def attempt(who):
            barrier.wait()
            try:
                (A, B, C)[who % 3].put_object(Bucket=BUCKET, Key=f"race/{number}", Body=str(who).encode(), IfNoneMatch="*")
                return who
            except ClientError as error:
                equal(code_of(error)[0] in ("PreconditionFailed", "ConditionalRequestConflict"), True, error)

        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            won = [who for who in pool.map(attempt, range(12)) if who is not None]
        equal(len(won), 1, f"winners {won}")
        for client in (A, B, C):
            equal(read(client, f"race/{number}"), str(won[0]).encode(), "content is the winner's")


@step("conditional: get and head If-(None-)Match, If-(Un)modified-Since")
def conditional_get():
    etag = A.put_object(Bucket=BUCKET, Key="get-if", Body=b"x")["ETag"]
    at = dict(Bucket=BUCKET, Key="get-if")
    modified = B.head_object(**at)["LastModified"]
    earlier, later = modified - datetime.timedelta(hours=1), modified + datetime.timedelta(seconds=1)
    for get in (B.get_object, C.head_object):
        get(**at, IfMatch=etag)
        get(**at, IfNoneMatch='"0"')
        get(**at, IfModifiedSince=earlier)
        get(**at, IfUnmodifiedSince=later)
        refused([412], get, **at, IfMatch='"0"')
        refused([304], get, **at, IfNoneMatch=etag)
        refused([304], get, **at, IfModifiedSince=modified)
        refused([412], get, **at, IfUnmodifiedSince=earlier)


@step("conditional: delete If-Match")
def conditional_delete():
    etag = A.put_object(Bucket=BUCKET, Key="delete-if", Body=b"x")["ETag"]
    try:
        B.delete_object(Bucket=BUCKET, Key="delete-if", IfMatch='"00000000000000000000000000000000"')
    except ClientError as error:
        code, status = code_of(error)
        if code == "NotImplemented":
            raise Skip(code) from error
        equal((code, status), ("PreconditionFailed", 412))
    else:
        wrong("deleted though the ETag is another")
    C.delete_object(Bucket=BUCKET, Key="delete-if", IfMatch=etag)
    refused([404], A.head_object, Bucket=BUCKET, Key="delete-if")


@step("ranges: first, last, open, too long, beyond")
def ranges():
    body = noise(9 * MIB, 3)
    A.put_object(Bucket=BUCKET, Key="range", Body=body)
    cases = {"bytes=0-0": body[:1], "bytes=-1": body[-1:], f"bytes={4 * MIB - 2}-{4 * MIB + 2}": body[4 * MIB - 2 : 4 * MIB + 3],
             f"bytes={8 * MIB}-": body[8 * MIB :], f"bytes={9 * MIB - 5}-99999999": body[-5:], "bytes=-99999999": body}
    for asked, expected in cases.items():
        got = B.get_object(Bucket=BUCKET, Key="range", Range=asked)
        equal(got["ResponseMetadata"]["HTTPStatusCode"], 206, asked)
        equal(got["Body"].read() == expected, True, asked)
        start = len(body) - len(expected) if asked.startswith("bytes=-") else int(asked[6:].split("-")[0])
        equal(got["ContentRange"], f"bytes {start}-{start + len(expected) - 1}/{len(body)}", asked)
    refused(["InvalidRange", 416], C.get_object, Bucket=BUCKET, Key="range", Range=f"bytes={9 * MIB}-")


@step("presigned: GET with headers of the answer, HEAD, PUT; another method, tampered, expired")
def presigned():
    body = noise(3 * MIB)
    url = A.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "pre signed+", "ContentType": "text/x-p"}, ExpiresIn=60)
    status, text, _ = http("PUT", url, body, {"Content-Type": "text/x-p"})
    equal(status, 200, text)
    equal(http("PUT", url, b"", {"Content-Type": "text/x-other"})[0], 403, "a signed header changed")
    url = B.generate_presigned_url(
        "get_object",
        Params={"Bucket": BUCKET, "Key": "pre signed+", "ResponseContentDisposition": 'attachment; filename="x"', "ResponseContentType": "a/b"},
        ExpiresIn=60,
    )
    status, got, headers = http("GET", url)
    equal((status, got == body), (200, True))
    equal((headers["Content-Disposition"], headers["Content-Type"]), ('attachment; filename="x"', "a/b"), "headers")
    status, got, _ = http("GET", url, headers={"Range": "bytes=5-9"})
    equal((status, got), (206, body[5:10]), "range")
    status, text, _ = http("DELETE", url)
    equal((status, b"SignatureDoesNotMatch" in text), (403, True), text)
    status, text, _ = http("GET", url.replace("pre%20signed", "pre%20signe"))
    equal(status, 403, text)
    head = C.generate_presigned_url("head_object", Params={"Bucket": BUCKET, "Key": "pre signed+"}, ExpiresIn=60)
    equal(http("HEAD", head)[0], 200, "head")
    soon = C.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "pre signed+"}, ExpiresIn=1)
    end = time.monotonic() + 10
    while (answer := http("GET", soon))[0] != 403 and time.monotonic() < end:
        time.sleep(0.3)
    status, text, _ = answer
    equal(status, 403, "expired within 10 s")
    equal(b"AccessDenied" in text, True, text)


@step("presigned: POST (an HTML form)")
def presigned_post():
    post = A.generate_presigned_post(BUCKET, "posted", Conditions=[["content-length-range", 1, 100]], ExpiresIn=60)
    boundary = uuid.uuid4().hex
    lines = [f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in post["fields"].items()]
    lines.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nposted\r\n--{boundary}--\r\n')
    status, text, _ = http("POST", post["url"], "".join(lines).encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"})
    if status == 501:
        raise Skip(text.decode(errors="replace")[-200:])
    equal(status in (200, 201, 204), True, text)
    equal(read(B, "posted"), b"posted")


@step("metadata and headers")
def metadata():
    expires = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    headers = dict(ContentType="text/html; charset=utf-8", CacheControl="max-age=60", ContentDisposition='inline; filename="a.html"',
                   ContentEncoding="gzip", ContentLanguage="de, en", Metadata={"one": "1", "two-words": "a  b, c"})
    A.put_object(Bucket=BUCKET, Key="meta", Body=b"x", Expires=expires, **headers)
    for got in (B.head_object(Bucket=BUCKET, Key="meta"), C.get_object(Bucket=BUCKET, Key="meta")):
        equal({name: got.get(name) for name in headers}, headers)
        equal(got.get("ExpiresString") or got.get("Expires"), "Wed, 02 Jan 2030 03:04:05 GMT", "Expires")
    B.put_object(Bucket=BUCKET, Key="meta", Body=b"x")
    equal(A.head_object(Bucket=BUCKET, Key="meta")["Metadata"], {}, "gone when replaced")
    refused(["MetadataTooLarge", 400], A.put_object, Bucket=BUCKET, Key="meta", Body=b"y", Metadata={"big": "x" * 10_000})


@step("tagging")
def tagging():
    optional(A.put_object, Bucket=BUCKET, Key="tagged", Body=b"x", Tagging="a=1&b=two%20words")
    tags = lambda client: {t["Key"]: t["Value"] for t in client.get_object_tagging(Bucket=BUCKET, Key="tagged")["TagSet"]}
    equal(tags(B), {"a": "1", "b": "two words"})
    equal(C.get_object(Bucket=BUCKET, Key="tagged").get("TagCount"), 2, "count")
    B.put_object_tagging(Bucket=BUCKET, Key="tagged", Tagging={"TagSet": [{"Key": "c", "Value": "3"}]})
    equal(tags(C), {"c": "3"})
    A.copy_object(Bucket=BUCKET, Key="tagged-copy", CopySource={"Bucket": BUCKET, "Key": "tagged"})
    equal(B.get_object_tagging(Bucket=BUCKET, Key="tagged-copy")["TagSet"], [{"Key": "c", "Value": "3"}], "copied")
    C.delete_object_tagging(Bucket=BUCKET, Key="tagged")
    equal(tags(A), {})
    eleven = {"TagSet": [{"Key": str(n), "Value": ""} for n in range(11)]}
    refused(["BadRequest", "InvalidTag"], A.put_object_tagging, Bucket=BUCKET, Key="tagged", Tagging=eleven)


@step("attributes")
def attributes():
    body = noise(1000)
    put = A.put_object(Bucket=BUCKET, Key="attributes", Body=body, ChecksumAlgorithm="SHA256")
    got = optional(B.get_object_attributes, Bucket=BUCKET, Key="attributes", ObjectAttributes=["ETag", "ObjectSize", "Checksum", "StorageClass"])
    # AWS sends this one without quotes, Pando with them (docs/s3.md).
    equal((got["ETag"].strip('"'), got["ObjectSize"]), (put["ETag"].strip('"'), 1000))
    equal(got["Checksum"]["ChecksumSHA256"], put["ChecksumSHA256"])


@step("versioning, if there is any")
def versioning():
    bucket = f"{BUCKET}-versions"
    A.create_bucket(Bucket=bucket)
    equal(B.get_bucket_versioning(Bucket=bucket).get("Status"), None, "off at first")
    optional(A.put_bucket_versioning, Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    equal(B.get_bucket_versioning(Bucket=bucket)["Status"], "Enabled")
    first = A.put_object(Bucket=bucket, Key="v", Body=b"1")["VersionId"]
    second = B.put_object(Bucket=bucket, Key="v", Body=b"2")["VersionId"]
    equal(read(C, "v", bucket, VersionId=first), b"1", "the first")
    marker = C.delete_object(Bucket=bucket, Key="v")
    equal(marker["DeleteMarker"], True)
    refused("NoSuchKey", A.get_object, Bucket=bucket, Key="v")
    listed = B.list_object_versions(Bucket=bucket)
    equal([v["VersionId"] for v in listed["Versions"]], [second, first], "versions")
    equal([m["VersionId"] for m in listed["DeleteMarkers"]], [marker["VersionId"]], "markers")
    A.delete_object(Bucket=bucket, Key="v", VersionId=marker["VersionId"])
    equal(read(B, "v", bucket), b"2", "undeleted")


@step("errors: NoSuchKey, NoSuchBucket, NoSuchUpload, names of buckets")
def errors():
    never = f"never-{RUN}"
    error = refused("NoSuchKey", A.get_object, Bucket=BUCKET, Key="never")
    equal(code_of(error)[1], 404)
    equal(bool(error.response["ResponseMetadata"].get("RequestId")), True, "has a request id")
    refused([404], B.head_object, Bucket=BUCKET, Key="never")
    refused("NoSuchBucket", A.get_object, Bucket=never, Key="x")
    refused("NoSuchBucket", B.put_object, Bucket=never, Key="x", Body=b"")
    refused("NoSuchBucket", C.list_objects_v2, Bucket=never)
    refused("NoSuchBucket", A.delete_bucket, Bucket=never)
    refused("NoSuchBucket", A.create_multipart_upload, Bucket=never, Key="x")
    for upload in ("never", str(uuid.uuid4()), base64.urlsafe_b64encode(os.urandom(40)).decode()):
        at = dict(Bucket=BUCKET, Key="x", UploadId=upload)
        refused("NoSuchUpload", A.upload_part, **at, PartNumber=1, Body=b"x")
        refused("NoSuchUpload", B.complete_multipart_upload, **at, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": '"0"'}]})
        refused("NoSuchUpload", C.abort_multipart_upload, **at)
    # boto3 itself lets these pass, S3 doesn't.
    for name in ("UPPER-case", "ab", "x" * 64, "a_b-c.d"):
        refused("InvalidBucketName", A.create_bucket, Bucket=name)


@step("errors: InvalidAccessKeyId, SignatureDoesNotMatch, nobody")
def strangers():
    refused("InvalidAccessKeyId", connect(ENDPOINTS[0], key="AKIAIOSFODNN7EXAMPLE").list_objects_v2, Bucket=BUCKET)
    thief = connect(ENDPOINTS[1], secret=SECRET[:-1] + ("A" if SECRET[-1] != "A" else "B"))
    refused("SignatureDoesNotMatch", thief.list_objects_v2, Bucket=BUCKET)
    refused("SignatureDoesNotMatch", thief.put_object, Bucket=BUCKET, Key="stolen", Body=noise(2 * MIB))
    refused([404], C.head_object, Bucket=BUCKET, Key="stolen")
    for url in (f"{ENDPOINTS[0]}/", f"{ENDPOINTS[1]}/{BUCKET}", f"{ENDPOINTS[2]}/{BUCKET}/meta"):
        status, text, _ = http("GET", url)
        equal((status, b"<Code>AccessDenied</Code>" in text), (403, True), url)
    equal(http("PUT", f"{ENDPOINTS[0]}/{BUCKET}/stolen", b"x")[0], 403, "anonymous put")


@step("any region")
def regions():
    for region in ("eu-central-1", "auto"):
        client = connect(ENDPOINTS[2], region=region)
        client.put_object(Bucket=BUCKET, Key=f"region-{region}", Body=b"x")
        equal(read(A, f"region-{region}"), b"x")


@step("what one node acknowledged, the others have at once")
def visible():
    clients = (A, B, C)
    for number in range(40):
        writer, reader, lister = (clients[(number + n) % 3] for n in range(3))
        writer.put_object(Bucket=BUCKET, Key="visible/changes", Body=str(number).encode())
        equal(read(reader, "visible/changes"), str(number).encode(), "overwritten")
        writer.put_object(Bucket=BUCKET, Key=f"visible/{number}", Body=b"x")
        equal([o["Key"] for o in lister.list_objects_v2(Bucket=BUCKET, Prefix=f"visible/{number}")["Contents"]][:1], [f"visible/{number}"])
        reader.delete_object(Bucket=BUCKET, Key=f"visible/{number}")
        equal("Contents" in writer.list_objects_v2(Bucket=BUCKET, Prefix=f"visible/{number}"), False, "deleted")


def clean():
    for bucket in [b["Name"] for b in A.list_buckets()["Buckets"] if b["Name"].startswith(BUCKET)]:
        for upload in A.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            A.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        for page in A.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            if page.get("Contents"):
                objects = [{"Key": o["Key"]} for o in page["Contents"]]
                equal(B.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True}).get("Errors", []), [])
        if not bucket.endswith("-versions"):
            C.delete_bucket(Bucket=bucket)


def main(words):
    failed = 0
    A.create_bucket(Bucket=BUCKET)
    chosen = [(title, function) for title, function in STEPS if not words or any(word in title for word in words)]
    for title, function in [*chosen, ("remove everything", clean)]:
        began = time.monotonic()
        word, more = "ok     ", ""
        deviations.clear()
        try:
            function()
            if deviations:
                failed += 1
                word, more = "FAILED ", "\n".join(f"        line {line}: {what}" for line, what in deviations)
        except Skip as why:
            word, more = "skipped", f"        not implemented: {why}"
        except Exception as error:  # noqa: BLE001: whatever it was, the next step is of interest too
            failed += 1
            where = traceback.extract_tb(error.__traceback__)
            lines = [f.lineno for f in where if f.filename == __file__]
            word, more = "FAILED ", f"        lines {lines}: {type(error).__name__}: {short(str(error))}"
        print(f"{word} boto3: {title} ({time.monotonic() - began:.1f}s)", flush=True)
        if more:
            print(more, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
