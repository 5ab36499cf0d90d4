"""What an OpenAPI document cannot say of a request, told to schemathesis: no check is switched off here."""

import os
import re

import schemathesis

PAIRS = (("Shoal-Author", "author"), ("Shoal-Message", "message"))
TAGS = re.compile(r'\*|(?:W/)?"[!#-~]*"(?: *, *(?:W/)?"[!#-~]*")*')


@schemathesis.auth()
class Token:
    """Everything may be done with it, so that the tool gets to what is behind the door."""

    def get(self, case, context):
        return os.environ["SHOAL_TOKEN"]

    def set(self, case, data, context):
        case.headers = case.headers or {}
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook("before_call")
def sign(context, case, kwargs):
    """A write is signed by a header, a parameter or its body: where it has none of the three it gets the header."""
    names = {parameter.name for parameter in case.operation.iter_parameters()}
    body = case.body if isinstance(case.body, dict) else {}
    for header, name in PAIRS:
        given = header in (case.headers or {}) or name in (case.query or {}) or body.get(name) is not None
        if header in names and not given:
            case.headers[header] = "schemathesis"


@schemathesis.hook("before_call")
def entity_tags(context, case, kwargs):
    """HTTP says of what form If-Match is, and the tool does not hold itself to it. Others are refused: etag.rs has the test."""
    for header, instead in (("If-Match", "*"), ("If-None-Match", '"r7"')):
        if header in (case.headers or {}) and not TAGS.fullmatch(str(case.headers[header])):
            case.headers[header] = instead
