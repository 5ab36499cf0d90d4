"""Record sets as Route 53 keeps them. moto applies a batch in parts, knows a set by its name and type alone, forgets half of what is
deleted, takes any value, and is always INSYNC; this puts a batch through as a whole or not at all, with the words that the
service uses, pages through sets of one name and type, and has changes that are PENDING."""
import ipaddress
import re
import time

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.route53 import exceptions, models, responses

TYPES = "A AAAA CAA CNAME DS HTTPS MX NAPTR NS PTR SOA SPF SRV SSHFP SVCB TLSA TXT".split()
ELEMENTS, CHARACTERS = 1000, 32000
POLICIES = {"Weight": "weighted", "Region": "latency", "GeoLocation": "geolocation", "Failover": "failover", "MultiValueAnswer": "multivalue"}


class Refused(exceptions.Route53ClientError):
    def __init__(self, messages):
        super().__init__("InvalidChangeBatch", "[" + ", ".join(messages) + "]")


def spelled(name):
    """A name as the service gives it back."""
    name = name.lower().rstrip(".") + "."
    code = re.compile(r"\\(\d\d\d)")
    plain = code.sub(lambda m: chr(int(m.group(1), 8)), name)
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else f"\\{ord(c):03o}" for c in plain)


def key_of(record):
    return (spelled(record["Name"]), record["Type"], record.get("SetIdentifier") or None)


def words(key):
    name, rtype, set_id = key
    return f"[name='{name}', type='{rtype}'" + (f", set-identifier='{set_id}']" if set_id else "]")


def policy_of(record):
    return next((word for field, word in POLICIES.items() if record.get(field) is not None), None)


def values_of(record):
    return sorted(entry["Value"] for entry in record.get("ResourceRecords") or [])


def same(there, record):
    if (there.alias_target or None) != (record.get("AliasTarget") or None):
        return False
    return sorted(there.records or []) == values_of(record) and int(there.ttl or 0) == int(record.get("TTL") or 0)


def wrong_value(rtype, value):
    illegal = "Invalid Resource Record: FATAL problem: {} encountered with '{}'"
    if rtype in ("A", "AAAA"):
        four = rtype == "A"
        try:
            (ipaddress.IPv4Address if four else ipaddress.IPv6Address)(value)
        except ValueError:
            word = "ARRDATAIllegalIPv4Address (Value is not a valid IPv4 address)" if four else "AAAARRDATAIllegalIPv6Address (Value is not a valid IPv6 address)"
            return illegal.format(word, value)
    if rtype == "TXT" and not re.fullmatch(r'("(?:[^"\\]|\\.){0,255}"\s*)+', value):
        return illegal.format("InvalidCharacterString (Value should be enclosed in quotation marks)", value)
    if rtype == "TXT" and "unlawful" in value:
        return illegal.format("UnsupportedCharacter (Value contains unsupported characters)", value)
    # What tests use to have something refused in words that name no record.
    if rtype == "CAA" and "unspeakable" in value:
        return "Invalid request"
    return None


def judge(zone, changes):
    """All that is wrong with a batch, and what the zone is after it."""
    after = {(r.name, r.type, r.set_identifier or None): r for r in zone.rrsets}
    names = {}
    for key in after:
        names.setdefault(key[0], set()).add(key)
    wrong = []
    domain = spelled(zone.name)
    for change in changes:
        action, record = change["Action"], change["ResourceRecordSet"]
        key = key_of(record)
        name, rtype, set_id = key
        there = after.get(key)
        if rtype not in TYPES:
            raise exceptions.InvalidInput(f"Value '{rtype}' failed to satisfy constraint: Member must satisfy enum value set")
        if name != domain and not name.endswith("." + domain):
            wrong.append(f"RRSet with DNS name {name} is not permitted in zone {domain}")
            continue
        if action == "CREATE" and there is not None:
            wrong.append(f"Tried to create resource record set {words(key)} but it already exists")
            continue
        if action == "DELETE":
            if there is None:
                wrong.append(f"Tried to delete resource record set {words(key)} but it was not found")
            elif not same(there, record):
                wrong.append(f"Tried to delete resource record set {words(key)} but the values provided do not match the current values")
            elif name == domain and rtype in ("SOA", "NS"):
                wrong.append(f"A HostedZone must contain exactly one {rtype} record for the zone itself")
            else:
                del after[key]
                names[name].discard(key)
            continue
        bad = [why for value in values_of(record) if (why := wrong_value(rtype, value))]
        if bad:
            wrong.extend(bad)
            continue
        after[key] = models.RecordSet({**record, "Name": name, "ResourceRecords": [e["Value"] for e in record.get("ResourceRecords") or []]})
        names.setdefault(name, set()).add(key)
    for change in changes:
        key = key_of(change["ResourceRecordSet"])
        if change["Action"] == "DELETE" or key not in after:
            continue
        name, rtype, set_id = key
        beside = [other for other in names.get(name, ()) if other != key]
        if any((rtype == "CNAME") != (other[1] == "CNAME") for other in beside):
            wrong.append(f"RRSet of type {rtype} with DNS name {name} is not permitted as it conflicts with other records with the same DNS name in zone {domain}")
        kinds = {policy_of_set(after[other]) for other in beside if other[1] == rtype}
        if kinds - {policy_of_set(after[key])}:
            wrong.append(f"RRSet with DNS name {name}, type {rtype}" + (f", SetIdentifier {set_id}" if set_id else "") + " cannot be created as other RRSets exist with the same name and type and another routing policy")
    return wrong, after


def policy_of_set(record):
    fields = {"Weight": record.weight, "Region": record.region, "GeoLocation": record.geo_location, "Failover": record.failover, "MultiValueAnswer": record.multi_value_answer}
    return policy_of(fields)


def order(record):
    return (list(reversed(spelled(record.name).split("."))), record.type, record.set_identifier or "")


def install(settings):
    backend, handler = models.Route53Backend, responses.Route53
    submitted = {}
    make_zone = backend.create_hosted_zone

    def create_hosted_zone(self, *args, **kwargs):
        zone = make_zone(self, *args, **kwargs)
        for record in zone.rrsets:
            record.name = spelled(record.name)
            record.records = [v["Value"] if isinstance(v, dict) else v for v in record.records]
            record.records = [v if " " in v or v.endswith(".") else v + "." for v in record.records]
        zone.rrsets.sort(key=order)
        return zone

    def change(self):
        zone = self.backend.get_hosted_zone(self._get_param("HostedZoneId"))
        changes = self._get_param("ChangeBatch.Changes")
        twice = {"UPSERT": 2}
        elements = sum(twice.get(c["Action"], 1) * len(c["ResourceRecordSet"].get("ResourceRecords") or []) for c in changes)
        characters = sum(twice.get(c["Action"], 1) * sum(map(len, values_of(c["ResourceRecordSet"]))) for c in changes)
        if elements > ELEMENTS or len(changes) > ELEMENTS:
            raise Refused([f"Number of records limit of {ELEMENTS} exceeded."])
        if characters > CHARACTERS:
            raise Refused([f"Maximum number of characters of {CHARACTERS} exceeded."])
        for c in changes:
            known = c["ResourceRecordSet"].get("HealthCheckId")
            if known and known not in self.backend.health_checks:
                raise exceptions.NoSuchHealthCheck(known)
        wrong, after = judge(zone, changes)
        if wrong:
            raise Refused(wrong)
        zone.rrsets = sorted(after.values(), key=order)
        id_ = f"/change/C{len(submitted) + 1:013d}"
        submitted[id_] = time.monotonic()
        return ActionResult({"ChangeInfo": info(id_)})

    def info(id_):
        done = time.monotonic() - submitted[id_] >= settings["pending"]
        return {"Id": id_, "Status": "INSYNC" if done else "PENDING", "SubmittedAt": utcnow()}

    def get_change(self):
        id_ = "/change/" + self._get_param("Id").rsplit("/", 1)[-1]
        if id_ not in submitted:
            raise exceptions.Route53ClientError("NoSuchChange", f"A change with id {id_} does not exist")
        return ActionResult({"ChangeInfo": info(id_)})

    def list_sets(self):
        zone = self.backend.get_hosted_zone(self._get_param("HostedZoneId"))
        most = min(self._get_int_param("MaxItems", 300), 300)
        name, rtype, set_id = (self._get_param(f"StartRecord{part}") for part in ("Name", "Type", "Identifier"))
        records = zone.rrsets
        if name:
            start = (list(reversed(spelled(name).split("."))), rtype or "", set_id or "")
            records = [record for record in records if order(record) >= start]
        page, rest = records[:most], records[most:]
        return ActionResult(
            {
                "ResourceRecordSets": page,
                "IsTruncated": bool(rest),
                "NextRecordName": rest[0].name if rest else None,
                "NextRecordType": rest[0].type if rest else None,
                "NextRecordIdentifier": rest[0].set_identifier if rest else None,
                "MaxItems": most,
            }
        )

    make_check = backend.create_health_check

    def create_health_check(self, caller_reference, health_check_args):
        for check in self.health_checks.values():
            if check.caller_reference == caller_reference:
                if check.plus != health_check_args:
                    raise exceptions.Route53ClientError("HealthCheckAlreadyExists", "The health check you're attempting to create already exists, with other settings.")
                return check
        check = make_check(self, caller_reference, health_check_args)
        check.plus = dict(health_check_args)
        return check

    def delete_health_check(self, health_check_id):
        if health_check_id not in self.health_checks:
            raise exceptions.NoSuchHealthCheck(health_check_id)
        used = any(r.health_check_id == health_check_id for zone in self.zones.values() for r in zone.rrsets)
        if used:
            raise exceptions.Route53ClientError("HealthCheckInUse", f"The health check {health_check_id} is in use")
        del self.health_checks[health_check_id]

    backend.create_hosted_zone = create_hosted_zone
    backend.create_health_check, backend.delete_health_check = create_health_check, delete_health_check
    handler.change_resource_record_sets, handler.list_resource_record_sets, handler.get_change = change, list_sets, get_change
