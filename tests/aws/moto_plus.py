#!/usr/bin/env python3
"""moto as a server, with what it lacks and a test needs: usage: moto_plus.py PORT

Under /plus it is told what to do and asked what it did (JSON in and out):
  GET  /plus         {"calls": {"ChangeResourceRecordSets": 3, …}, "log": [{"action": …, "at": …, "status": …, "note": …}, …]}
  POST /plus/reset   forgets calls, log and faults (not what was made)
  POST /plus/set     {"pending": 2.0, "initial": 1.0, "draining": 1.0, "rate": 5, "burst": 5}
  POST /plus/fault   {"action": "ChangeResourceRecordSets", "kind": "lost", "times": 1, "after": 0}
                     kind: lost      does the work and closes the connection without an answer
                           broken    does the work and answers 500
                           error     answers 500 and does nothing
                           throttle  answers Throttling and does nothing
                           prior     answers PriorRequestNotComplete and does nothing
                           deny      answers AccessDenied and does nothing
                           slow      waits for "seconds" and then does the work
                     "after": so many calls of the action pass first; action "*" is any
"at" is when a call came, in seconds of a clock that never goes back.
"rate": calls a second of all services together; more are answered with Throttling. 0: no limit.
Times are in seconds and count from the call; changing one with /plus/set changes what is under way, too.
"""
import io
import json
import re
import socket
import sys
import threading
import time
from urllib.parse import parse_qsl

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple
from werkzeug.wrappers import Request, Response

import plus_ec2
import plus_elbv2
import plus_route53

SETTINGS = {"pending": 0.0, "initial": 0.0, "draining": 0.0, "rate": 0.0, "burst": 5.0}

ROUTE53 = [
    ("GET", r"/hostedzone/[^/]+/rrset/?$", "ListResourceRecordSets"),
    ("POST", r"/hostedzone/[^/]+/rrset/?$", "ChangeResourceRecordSets"),
    ("GET", r"/hostedzonesbyname", "ListHostedZonesByName"),
    ("GET", r"/hostedzone/?$", "ListHostedZones"),
    ("POST", r"/hostedzone/?$", "CreateHostedZone"),
    ("GET", r"/hostedzone/[^/]+$", "GetHostedZone"),
    ("GET", r"/change/[^/]+$", "GetChange"),
    ("GET", r"/healthcheck/?$", "ListHealthChecks"),
    ("POST", r"/healthcheck/?$", "CreateHealthCheck"),
    ("GET", r"/healthcheck/[^/]+$", "GetHealthCheck"),
    ("DELETE", r"/healthcheck/[^/]+$", "DeleteHealthCheck"),
]

ANSWERS = {
    "broken": (500, "InternalFailure", "An internal error occurred."),
    "error": (500, "InternalFailure", "An internal error occurred."),
    "throttle": (400, "Throttling", "Rate exceeded"),
    "prior": (400, "PriorRequestNotComplete", "The request was rejected because Route 53 was still processing a prior request."),
    "deny": (403, "AccessDenied", "User is not authorized to perform this action"),
}


def answer(status, code, message):
    body = (
        '<?xml version="1.0"?>\n<ErrorResponse><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>plus</RequestId></ErrorResponse>"
    )
    return Response(body, status=status, content_type="text/xml")


def refusal(environ, kind):
    status, code, message = ANSWERS[kind]
    if not is_ec2(environ):
        return answer(status, code, message)
    if kind == "throttle":
        status, code, message = 503, "RequestLimitExceeded", "Request limit exceeded."
    if kind == "deny":
        code = "UnauthorizedOperation"
    return plus_ec2.answer(status, code, message)


def action_of(method, path, body):
    if path.startswith("/2013-04-01/"):
        for verb, pattern, name in ROUTE53:
            if verb == method and re.search(pattern, path):
                return name
    if b"Action=" in body:
        return dict(parse_qsl(body.decode("utf-8", "replace"))).get("Action", "?")
    return f"{method} {path}"


class Bucket:
    """So many calls a second, so many at once after a pause."""

    def __init__(self):
        self.level, self.at = None, time.monotonic()

    def allows(self, rate, burst):
        now = time.monotonic()
        level = burst if self.level is None else min(burst, self.level + (now - self.at) * rate)
        self.at = now
        allowed = level >= 1
        self.level = level - 1 if allowed else level
        return allowed


def is_ec2(environ):
    return "/ec2/aws4_request" in environ.get("HTTP_AUTHORIZATION", "")


class Plus:
    def __init__(self, app, ec2):
        self.app, self.ec2, self.lock = app, ec2, threading.Lock()
        self.calls, self.log, self.faults, self.bucket = {}, [], [], Bucket()

    def __call__(self, environ, start_response):
        request = Request(environ)
        body = request.get_data(cache=True)
        environ["wsgi.input"] = io.BytesIO(body)
        if request.path.startswith("/plus"):
            return self.told(request, body)(environ, start_response)
        if request.path.startswith("/moto-api"):
            return self.app(environ, start_response)
        action = action_of(request.method, request.path, body)
        with self.lock:
            self.calls[action] = self.calls.get(action, 0) + 1
            fault = self.fault(action)
            throttled = SETTINGS["rate"] > 0 and not self.bucket.allows(SETTINGS["rate"], SETTINGS["burst"])
        if throttled:
            fault = {"kind": "throttle"}
        return self.do(environ, start_response, action, fault, body)

    def ask(self, environ, action, body):
        """What moto answers, with what it lacks of EC2."""
        if not is_ec2(environ):
            return Response.from_app(self.app, environ)
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        instead = self.ec2.before(action, form)
        if instead is not None:
            return instead
        body = self.ec2.rewritten(action, body)
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
        return self.ec2.after(action, form, Response.from_app(self.app, environ))

    def do(self, environ, start_response, action, fault, body):
        at = time.monotonic()
        kind = (fault or {}).get("kind")
        if kind == "slow":
            time.sleep(fault.get("seconds", 1.0))
        if kind in ("error", "throttle", "prior", "deny"):
            response = refusal(environ, kind)
        else:
            # One at a time: what was made by one call is whole when the next one is looked at.
            with self.lock:
                made = self.ask(environ, action, body)
                response = Response(made.get_data(), made.status_code, list(made.headers))
            if kind == "broken":
                response = refusal(environ, kind)
        note = kind or ""
        if response.status_code >= 400 and not note:
            note = response.get_data(as_text=True)[:600]
        with self.lock:
            self.log.append({"action": action, "at": at, "status": response.status_code, "note": note})
        if kind == "lost":
            connection = environ["werkzeug.socket"]
            connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("on demand")
        return response(environ, start_response)

    def fault(self, action):
        for fault in self.faults:
            if fault["action"] not in ("*", action):
                continue
            if fault.get("after", 0) > 0:
                fault["after"] -= 1
                continue
            fault["times"] = fault.get("times", 1) - 1
            if fault["times"] <= 0:
                self.faults.remove(fault)
            return dict(fault)
        return None

    def told(self, request, body):
        with self.lock:
            if request.path == "/plus/reset":
                self.calls, self.log, self.faults, self.bucket = {}, [], [], Bucket()
            elif request.path == "/plus/set":
                SETTINGS.update(json.loads(body))
                self.bucket = Bucket()
            elif request.path == "/plus/fault":
                self.faults.append(json.loads(body))
            elif request.path != "/plus":
                return Response("no such thing\n", status=404)
            said = {"calls": self.calls, "log": self.log, "settings": SETTINGS}
            return Response(json.dumps(said), content_type="application/json")


class Handler(WSGIRequestHandler):
    # Connections are kept, as AWS keeps them: else every call of a test would open one.
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


if __name__ == "__main__":
    plus_route53.install(SETTINGS)
    plus_elbv2.install(SETTINGS)
    application = Plus(DomainDispatcherApplication(create_backend_app), plus_ec2.install(SETTINGS))
    run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True, request_handler=Handler)
