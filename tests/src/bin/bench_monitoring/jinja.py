"""Writes what Nagios reads of a fleet, as generators in Python do: one Jinja template, rendered for each host.

jinja.py HOSTS: prints the seconds of processor time that rendering takes, without what compiles the template and makes the
data; the median of several runs. Exits with 77 where Jinja is not installed.
"""
import statistics
import sys
import time

try:
    import jinja2
except ImportError:
    sys.exit(77)

TEMPLATE = """define host {
host_name {{ host.name }}
address {{ host.address }}
check_command {{ host.check }}
check_interval {{ host.interval }}
retry_interval 1
max_check_attempts 3
contact_groups {{ host.contact_groups | join(',') }}
hostgroups {{ host.groups | join(',') }}
{% if host.box %}parents {{ host.box }}
{% endif %}{% for name, value in host.labels.items() %}_{{ name }} {{ value }}
{% endfor %}}
{% for service in host.services %}define service {
host_name {{ host.name }}
service_description {{ service.name }}
check_command {{ service.command }}{% for arg in service.args %}!{{ arg }}{% endfor %}
check_interval {{ host.interval }}
retry_interval 1
max_check_attempts 3
contact_groups {{ host.contact_groups | join(',') }}
}
{% endfor %}"""

SERVICES = [
    {"name": "http", "command": "check_http", "args": ["80", "/health"]},
    {"name": "load", "command": "check_nrpe", "args": ["5", "10"]},
    {"name": "mail", "command": "check_mail", "args": []},
    {"name": "procs", "command": "check_procs", "args": ["250", "300"]},
    {"name": "ssh", "command": "check_ssh", "args": []},
]


def fleet(count):
    for n in range(count):
        yield {
            "name": f"web{n}.example.com",
            "address": f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}",
            "check": "check_ping!100,20%!500,60%",
            "interval": 5,
            "contact_groups": ["operators"],
            "groups": [f"site-s{n % 9}", "web"],
            "box": f"web{n - n % 30}.example.com" if n % 30 else None,
            "labels": {"site": f"s{n % 9}"},
            "services": SERVICES,
        }


def main():
    hosts = list(fleet(int(sys.argv[1])))
    template = jinja2.Environment(autoescape=False).from_string(TEMPLATE)
    times = []
    for _ in range(5):
        before = time.process_time()
        made = "".join(template.render(host=host) for host in hosts)
        times.append(time.process_time() - before)
    if made.count("define service {") != 5 * len(hosts):
        sys.exit("the template does not render five services for each host")
    print(statistics.median(times))


main()
