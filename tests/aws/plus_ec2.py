"""Instances as EC2 has them: a launch with the same client token is the same instance, an instance is pending before it runs and shutting
down before it is terminated, it is checked only after a while, and is not seen at once. moto ignores tokens, runs and ends at once.

Of /plus/set these are for here; times are in seconds:
  "starts", "checks"   how long an instance is pending, and how long its checks are initializing after that
  "stops", "ends"      how long one is stopping, and shutting-down
  "unseen"             how long DescribeInstances does not know what was launched
  "page"               the most reservations of one page; 0: as many as are asked for
  "full"               ["m7g.large/spot", "m7g.large"]: where there is no room (InsufficientInstanceCapacity)
  "marked"             ids of instances that are marked for an interruption
  "impaired"           ids of instances whose checks fail
  "unknown"            ids of instances that DescribeInstanceStatus does not know yet
A launch that is refused for want of room uses up its token, as it was seen with AWS: the same words may be said again, others not."""
import hashlib
import re
import time
from urllib.parse import parse_qsl, urlencode

from moto.ec2 import ec2_backends
from moto.ec2.models.instances import Instance
from werkzeug.wrappers import Response

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
TIMES = ["starts", "checks", "stops", "ends", "unseen"]


def answer(status, code, message):
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error>'
        f"<Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>plus</RequestID></Response>"
    )
    return Response(body, status=status, content_type="text/xml;charset=UTF-8")


def set_state(instance, name):
    instance._state.name, instance._state.code = name, CODES[name]
    instance.plus_since = time.monotonic()


def everything():
    for account in list(ec2_backends.values()):
        for backend in list(account.values()):
            for reservation in list(backend.reservations.values()):
                yield from reservation.instances


class Ec2:
    def __init__(self, settings):
        self.settings, self.tokens = settings, {}

    def grow(self):
        """What had its time goes on."""
        nexts = {"pending": ("starts", "running"), "stopping": ("stops", "stopped"), "shutting-down": ("ends", "terminated")}
        for instance in everything():
            time_of, then = nexts.get(instance._state.name, (None, None))
            if then and time.monotonic() - getattr(instance, "plus_since", 0) >= self.settings[time_of]:
                set_state(instance, then)

    def check(self, instance):
        if instance.id in self.settings["impaired"]:
            return "impaired"
        fresh = time.monotonic() - getattr(instance, "plus_since", 0) < self.settings["checks"]
        return "initializing" if fresh else "ok"

    def before(self, action, form):
        """An answer instead of moto's, or none."""
        self.grow()
        if action == "RunInstances":
            return self.launch(form)
        if action == "DescribeSpotInstanceRequests":
            return self.spot(form)
        if action in ("DescribeInstances", "TerminateInstances", "StartInstances", "StopInstances", "DescribeInstanceStatus"):
            hidden = {i.id for i in everything() if self.is_hidden(i)}
            if action == "DescribeInstanceStatus":
                hidden |= set(self.settings["unknown"])
            named = [value for key, value in form.items() if key.startswith("InstanceId.") and value in hidden]
            if named:
                return answer(400, "InvalidInstanceID.NotFound", f"The instance ID '{named[0]}' does not exist")
        return None

    def is_hidden(self, instance):
        return time.monotonic() - getattr(instance, "plus_launched", 0) < self.settings["unseen"]

    def launch(self, form):
        digest = hashlib.sha256(repr(sorted(form.items())).encode()).hexdigest()
        token = form.get("ClientToken")
        known = self.tokens.get(token) if token else None
        if known and known[0] != digest:
            words = "Arguments on this idempotent request are inconsistent with arguments used in previous request(s)."
            return answer(400, "IdempotentParameterMismatch", words)
        if known and known[1] is not None:
            made = [i for i in everything() if i.client_token == token]
            if all(i._state.name == "terminated" for i in made):
                words = "The client token you have provided is associated with a terminated instance."
                return answer(400, "IdempotentInstanceTerminated", words)
            return Response(known[1], 200, content_type="text/xml;charset=UTF-8")
        if token:
            self.tokens[token] = [digest, None]
        market = "/spot" if form.get("InstanceMarketOptions.MarketType") == "spot" else ""
        if form.get("InstanceType", "") + market in self.settings["full"]:
            return answer(500, "InsufficientInstanceCapacity", "We currently do not have sufficient capacity.")
        return None

    def spot(self, form):
        asked = [value for key, value in form.items() if key.startswith(("SpotInstanceRequestId.", "Filter.1.Value."))]
        items = ""
        for instance in everything():
            request = getattr(instance, "spot_instance_request_id", None)
            if request and (not asked or request in asked):
                code = "marked-for-termination" if instance.id in self.settings["marked"] else "fulfilled"
                items += (
                    f"<item><spotInstanceRequestId>{request}</spotInstanceRequestId><instanceId>{instance.id}</instanceId>"
                    f"<state>active</state><status><code>{code}</code><message>{code}</message></status></item>"
                )
        body = (
            '<DescribeSpotInstanceRequestsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>plus</requestId>'
            f"<spotInstanceRequestSet>{items}</spotInstanceRequestSet></DescribeSpotInstanceRequestsResponse>"
        )
        return Response(body, content_type="text/xml;charset=UTF-8")

    def after(self, action, form, response):
        """What moto leaves out of a call that it did."""
        if response.status_code != 200:
            return response
        if action == "RunInstances":
            ids = re.findall(r"<instanceId>(i-[0-9a-f]+)</instanceId>", response.get_data(as_text=True))
            for instance in (i for i in everything() if i.id in ids):
                instance.plus_launched = time.monotonic()
                set_state(instance, "pending" if self.settings["starts"] > 0 else "running")
                instance.disable_api_termination = form.get("DisableApiTermination") == "true"
                if form.get("InstanceMarketOptions.MarketType") == "spot":
                    instance.spot_instance_request_id = "sir-" + instance.id[2:10]
            if form.get("ClientToken"):
                self.tokens[form["ClientToken"]][1] = response.get_data()
        if action == "StartInstances":
            self.turn(form, "pending" if self.settings["starts"] > 0 else "running")
        if action == "StopInstances":
            self.turn(form, "stopping" if self.settings["stops"] > 0 else "stopped")
        if action == "DescribeInstances" and self.settings["unseen"] > 0:
            return self.hide(response)
        return response

    def turn(self, form, state):
        ids = [value for key, value in form.items() if key.startswith("InstanceId.")]
        for instance in (i for i in everything() if i.id in ids):
            set_state(instance, state)

    def hide(self, response):
        hidden = {i.id for i in everything() if self.is_hidden(i)}
        text = response.get_data(as_text=True)
        # A reservation here is one launch of one instance.
        keep = lambda match: "" if any(i in match.group(0) for i in hidden) else match.group(0)
        text = re.sub(r"<item><(?:groups|groupSet|reservationId|instancesSet|ownerId)[\s\S]*?</instancesSet>[\s\S]*?</item>", keep, text)
        return Response(text, 200, content_type="text/xml;charset=UTF-8")

    def rewritten(self, action, body):
        """The same call with pages that are as large as they may be."""
        page = self.settings["page"]
        if action != "DescribeInstances" or not page or b"MaxResults=" not in body:
            return body
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        form["MaxResults"] = str(min(int(form["MaxResults"]), page))
        return urlencode(form).encode()


def install(settings):
    settings.update({name: 0.0 for name in TIMES})
    settings.update({"page": 0, "full": [], "marked": [], "impaired": [], "unknown": []})
    ended = Instance.terminate

    def terminate(instance, *more, **named):
        if instance._state.name in ("terminated", "shutting-down"):
            return instance._state
        was = ended(instance, *more, **named)
        set_state(instance, "shutting-down" if settings["ends"] > 0 else "terminated")
        return was

    Instance.terminate = terminate
    ec2 = Ec2(settings)
    Instance.instance_status = property(lambda instance: {"Status": ec2.check(instance)})
    return ec2
