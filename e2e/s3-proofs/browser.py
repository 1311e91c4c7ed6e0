"""A video in a browser: `browser.py FILE SECONDS` puts a WebM and a page that shows it through the first node, opens the
page from the last one in headless Chromium, and looks whether it plays and seeks.

From the environment: E2E_ENDPOINTS, E2E_CHROMEDRIVER (where it listens), E2E_FOLDER (for the browser's profile, and
`screenshot.png`), and what s3wire.py wants. Speaks WebDriver (W3C) with the standard library. One line a step.
"""

import asyncio
import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request

from s3wire import Connection, presigned

FIRST, *_, LAST = os.environ["E2E_ENDPOINTS"].split(",")
DRIVER = os.environ["E2E_CHROMEDRIVER"]
FOLDER = os.environ["E2E_FOLDER"]
FILE, SECONDS = sys.argv[1], float(sys.argv[2])
# For each thing that is waited for: a busy machine decodes slower than it plays.
DEADLINE = 90
ARGUMENTS = [
    "--headless",
    # Chromium's own sandbox can't be had as root, and nothing is opened but our page.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--window-size=1000,700",
    f"--user-data-dir={FOLDER}/profile",
]
PAGE = """<!doctype html><title>video</title><style>video {{ width: 900px }}</style>
<h1>From a node that does not hold it</h1><video src="{}" muted controls></video>"""
STATE = """
const video = document.querySelector("video"), ranges = [];
for (let i = 0; i < video.buffered.length; i++) ranges.push([video.buffered.start(i), video.buffered.end(i)]);
// What it shows: the page comes from the same node, so that a canvas may tell.
let colours = 0;
if (video.readyState >= 2) {
  const canvas = new OffscreenCanvas(64, 36), paint = canvas.getContext("2d");
  paint.drawImage(video, 0, 0, 64, 36);
  colours = new Set(new Uint32Array(paint.getImageData(0, 0, 64, 36).data.buffer)).size;
}
return {
  time: video.currentTime, duration: video.duration, ready: video.readyState, seeking: video.seeking,
  error: video.error && video.error.message, width: video.videoWidth, height: video.videoHeight,
  frames: video.getVideoPlaybackQuality().totalVideoFrames, buffered: ranges, colours: colours,
};
"""


def say(what):
    print(what, flush=True)


class Browser:
    def __init__(self):
        options = {"binary": os.environ.get("CHROMIUM", "/usr/bin/chromium"), "args": ARGUMENTS}
        wanted = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        made = self.call("POST", "/session", {"capabilities": wanted}, base="")
        self.session, self.version = made["sessionId"], made["capabilities"]["browserVersion"]

    def call(self, method, path, body=None, base=None):
        base = f"/session/{self.session}" if base is None else base
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(DRIVER + base + path, data, {"content-type": "application/json"}, method=method)
        # What the machine sets as a proxy is for elsewhere.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=DEADLINE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            sys.exit(f"chromedriver: {error.read().decode()[:1000]}")

    def run(self, script):
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def until(self, what, holds):
        """Looks at the video until this holds of it."""
        end = time.monotonic() + DEADLINE
        while True:
            state = self.run(STATE)
            if state["error"]:
                sys.exit(f"{what}: the browser says {state['error']}")
            if holds(state):
                say(f"{what}: at {state['time']:.1f} s, {state['frames']} frames, buffered {state['buffered']}")
                return state
            if time.monotonic() > end:
                sys.exit(f"{what}: not within {DEADLINE} s: {state}")
            time.sleep(0.1)


async def put(path, kind, body):
    connection = await Connection.open(FIRST)
    answer = await connection.request("PUT", presigned(FIRST, "PUT", path), [("content-type", kind)], body)
    connection.close()
    if answer.status != 200:
        sys.exit(f"put {path}: {answer}")


async def open_to_all(bucket):
    """Lets anybody read what is in the bucket."""
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]}).encode()
    connection = await Connection.open(FIRST)
    answer = await connection.request("PUT", presigned(FIRST, "PUT", f"/{bucket}", [("policy", "")]), body=policy)
    connection.close()
    if answer.status not in (200, 204):
        sys.exit(f"put the policy: {answer}")


async def metric(name):
    connection = await Connection.open(LAST)
    page = (await connection.request("GET", "/metrics")).body.decode()
    connection.close()
    return next((float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name)), 0)


def shows(state):
    """It plays, has what comes next, and is a picture."""
    return state["ready"] >= 3 and not state["seeking"] and state["colours"] > 20


def play():
    with open(FILE, "rb") as file:
        video = file.read()
    asyncio.run(put("/default/film.webm", "video/webm", video))
    asyncio.run(open_to_all("default"))

    page = PAGE.format(f"{LAST}/default/film.webm")
    asyncio.run(put("/default/page.html", "text/html; charset=utf-8", page.encode()))
    say(f"a film of {len(video) / 2**20:.1f} MiB and a page are put: anybody may read them")

    browser = Browser()
    say(f"Chromium {browser.version}")
    try:
        browser.call("POST", "/url", {"url": f"{LAST}/default/page.html"})
        state = browser.until("it is there", lambda state: state["ready"] >= 1)
        assert abs(state["duration"] - SECONDS) < 1 and (state["width"], state["height"]) == (640, 360), state
        browser.run('document.querySelector("video").play()')
        began = browser.until("it plays", lambda state: state["time"] > 1 and state["frames"] > 10 and shows(state))
        for place in (SECONDS * 3 / 4, SECONDS / 4):
            browser.run(f'document.querySelector("video").currentTime = {place}')
            state = browser.until(
                f"it plays on from {place:.0f} s",
                lambda state: place + 0.5 < state["time"] < place + SECONDS / 4 and shows(state),
            )
            assert any(start <= state["time"] <= end for start, end in state["buffered"]), state
            assert state["frames"] > began["frames"], state
        with open(f"{FOLDER}/screenshot.png", "wb") as file:
            file.write(base64.b64decode(browser.call("GET", "/screenshot")))
    finally:
        browser.call("DELETE", "")

    ranges = asyncio.run(metric('pando_http_requests_total{operation="GetObject",status="206"}'))
    say(f"it asked for {ranges:.0f} ranges")
    assert ranges >= 2, "the end of a WebM has the table of where to seek: that is a range of its own"


play()
