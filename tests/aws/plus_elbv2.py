"""Target groups as ELBv2 has them: a target is an id with a port, is `initial` before it is `healthy`, and `draining` after it was
deregistered. moto knows a target by its id alone, is healthy at once, and forgets at once.

Of /plus/set these are for here, beside the times: "refused": ids that cannot be registered (InvalidTarget: then nothing of the call is
done, as with AWS), "unhealthy": ids whose checks fail."""
import time

from moto.elbv2 import models
from moto.elbv2.exceptions import ELBClientError

# More in one call is refused. AWS does not say how many it takes; this is what its own controller for Kubernetes sends at most.
MOST = 200


class Refused(ELBClientError):
    def __init__(self, code, message):
        super().__init__(code, message)


def port_of(group, target):
    return int(target.get("Port") or group.port or 0)


def book(group):
    """What is known of a group's targets: (id, port) -> [state, since]."""
    if not hasattr(group, "plus"):
        group.plus = {}
    return group.plus


def install(settings):
    group_class, backend_class = models.FakeTargetGroup, models.ELBv2Backend
    settings.update({"refused": [], "unhealthy": []})

    def grow(group):
        now = time.monotonic()
        for key, (state, since) in list(book(group).items()):
            if state == "initial" and now - since >= settings["initial"]:
                book(group)[key] = ["healthy", now]
            elif state == "draining" and now - since >= settings["draining"]:
                del book(group)[key]
        group.targets = {
            f"{id_}:{port}": {"Id": id_, "Port": port} for (id_, port), (state, _) in book(group).items() if state != "draining"
        }

    def check(targets):
        if len(targets) > MOST:
            raise Refused("ValidationError", f"{len(targets)} targets in one call")

    def register(group, targets):
        check(targets)
        refused = [target["Id"] for target in targets if target["Id"] in settings["refused"]]
        if refused:
            raise Refused("InvalidTarget", f"The following targets are not in a running state and cannot be registered: {refused}")
        grow(group)
        for target in targets:
            key = (target["Id"], port_of(group, target))
            if book(group).get(key, ["draining"])[0] == "draining":
                book(group)[key] = ["initial", time.monotonic()]
        grow(group)

    def deregister(group, targets):
        check(targets)
        grow(group)
        for target in targets:
            # Without a port: all of this id.
            ports = [int(target["Port"])] if target.get("Port") else [p for (id_, p) in book(group) if id_ == target["Id"]]
            for port in ports:
                entry = book(group).get((target["Id"], port))
                if entry and entry[0] != "draining":
                    book(group)[(target["Id"], port)] = ["draining", time.monotonic()]
        grow(group)

    reasons = {
        "initial": ("Elb.RegistrationInProgress", "Target registration is in progress"),
        "draining": ("Target.DeregistrationInProgress", "Target deregistration is in progress"),
        "unused": ("Target.NotRegistered", "Target is not registered to the target group"),
        "healthy": (None, None),
        "unhealthy": ("Target.FailedHealthChecks", "Health checks failed"),
    }

    def health(self, target_group_arn, targets):
        group = self.target_groups.get(target_group_arn)
        if group is None:
            raise models.TargetGroupNotFoundError()
        grow(group)
        asked = [(t["Id"], port_of(group, t)) for t in targets] if targets else sorted(book(group))
        found = []
        for id_, port in asked:
            state = book(group).get((id_, port), ["unused"])[0]
            if state == "healthy" and id_ in settings["unhealthy"]:
                state = "unhealthy"
            reason, description = reasons[state]
            found.append(models.FakeHealthStatus(id_, port, group.health_check_port, state, reason, description))
        return found

    group_class.register, group_class.deregister = register, deregister
    backend_class.describe_target_health = health
