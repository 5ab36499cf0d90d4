# Ansible's inventory out of Shoal, as a plugin: with options, constructed groups and Ansible's own cache.
from __future__ import annotations

DOCUMENTATION = r"""
name: shoal
short_description: Hosts and groups out of a Shoal database
description:
  - The tags of one namespace are groups, nested tags are child groups, and documents are variables.
  - Runs the command C(shoal inventory --list), or asks a server, which needs nothing installed beside Ansible.
  - The file that configures it is called C(shoal.yml), C(shoal.yaml), or something that ends with C(.shoal.yml) or C(.shoal.yaml).
options:
  plugin:
    description: Says that the file is of this plugin.
    required: true
    choices: [shoal]
  url:
    description: A server that is asked, such as C(http://127.0.0.1:8053). Without it the command is run.
    type: str
    env: [{name: SHOAL_INVENTORY_URL}]
  token_file:
    description:
      - A file with the token that is shown, and nothing else. A server that asks who may do what wants one.
      - It takes the right to read hosts, the tags of the namespace, its schema and, where rules or C(where) read them, facts.
    type: path
    env: [{name: SHOAL_TOKEN_FILE}]
  ca:
    description: A file (PEM) with the authorities that the server's certificate has to be signed by. Without it, those of the system.
    type: path
    env: [{name: SHOAL_CA}]
  command:
    description: The command.
    type: str
    default: shoal
  store:
    description: The database that the command is told to use, such as C(sqlite:/var/lib/shoal/shoal.db). Without it, what C(SHOAL_STORE) says.
    type: str
  namespace:
    description: The namespace whose tags are the groups.
    type: str
    default: tags
    env: [{name: SHOAL_INVENTORY_NAMESPACE}]
  where:
    description: Only hosts that this CEL expression selects. Ansible takes longer the more it is given.
    type: str
    env: [{name: SHOAL_INVENTORY_WHERE}]
  timeout:
    description: How many seconds the database may take.
    type: int
    default: 30
extends_documentation_fragment: [constructed, inventory_cache]
"""

EXAMPLES = r"""
# shoal.yml
plugin: shoal
url: https://shoal.example.com:8053
token_file: ~/.config/shoal/token
ca: /etc/shoal/tls/ca.pem
where: site == "rdu3" && state == "active"
keyed_groups:
  - {key: site, prefix: site}
cache: true
cache_plugin: jsonfile
cache_connection: ~/.cache/ansible-shoal
cache_timeout: 60
"""

import json
import os
import subprocess
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit

from ansible.errors import AnsibleParserError
from ansible.module_utils.urls import open_url
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

# The largest answer that is read, in octets.
LARGEST = 256 << 20
# The longest file with a token that is read, in octets.
LONGEST = 4096
# Where the token may go without TLS: to this machine.
HERE = ("localhost", "127.0.0.1", "::1")


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "shoal"

    def verify_file(self, path):
        names = ("shoal.yml", "shoal.yaml")
        name = os.path.basename(path)
        return super().verify_file(path) and (name in names or name.endswith(tuple("." + end for end in names)))

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        key = self.get_cache_key(path)
        use = cache and self.get_option("cache")
        found = None
        if use:
            try:
                found = self._cache[key]
            except KeyError:
                pass
        if found is None:
            found = self._ask()
            if self.get_option("cache"):
                self._cache[key] = found
        self._fill(found)

    def _ask(self):
        """The inventory, or an error: a database that does not answer is no empty fleet."""
        try:
            text = self._get() if self.get_option("url") else self._run()
            found = json.loads(text)
            found["_meta"]["hostvars"].items()
        except AnsibleParserError:
            raise
        except Exception as why:
            raise AnsibleParserError(f"there is no inventory from Shoal: {why}") from why
        unsure = found["_meta"].get("unsure", 0)
        if unsure:
            self.display.warning(f"shoal: the expression cannot be evaluated for {unsure} hosts, which are left out")
        return found

    def _get(self):
        asked = {"namespace": self.get_option("namespace")}
        if self.get_option("where"):
            asked["where"] = self.get_option("where")
        url = self.get_option("url").rstrip("/") + "/api/v2/inventory?" + urlencode(asked)
        headers = {}
        if self.get_option("token_file"):
            headers["Authorization"] = "Bearer " + self._token(url)
        # Wherever else it is told to go, the token would go, too.
        how = {"headers": headers, "follow_redirects": "none", "timeout": self.get_option("timeout")}
        if self.get_option("ca"):
            how["ca_path"] = self.get_option("ca")
        try:
            with open_url(url, **how) as answer:
                text = answer.read(LARGEST + 1)
        except HTTPError as refused:
            raise AnsibleParserError(self._refused(refused)) from refused
        if len(text) > LARGEST:
            raise AnsibleParserError(f"the inventory from Shoal has more than {LARGEST} octets")
        return text

    def _token(self, url):
        """The token, for a server that nobody else on the way can read it from."""
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in HERE:
            raise AnsibleParserError(f"the token is not sent to {parts.netloc} without TLS: give an https address")
        path = self.get_option("token_file")
        with open(path, encoding="ascii") as file:
            token = file.read(LONGEST).strip()
        if not token or not token.isprintable() or " " in token:
            raise AnsibleParserError(f"{path} holds no token, or something besides")
        return token

    def _refused(self, refused):
        """What the server says, and what to do about it."""
        try:
            why = json.loads(refused.read(LONGEST)).get("detail", "")
        except Exception:
            why = ""
        said = f"there is no inventory from Shoal: {self.get_option('url')} answers {refused.code}: {why or refused.reason}"
        if refused.code == 401 and not self.get_option("token_file"):
            said += "; give it a token with token_file, or SHOAL_TOKEN_FILE"
        return said

    def _run(self):
        line = [self.get_option("command"), "inventory", "--list", "--namespace", self.get_option("namespace")]
        if self.get_option("where"):
            line += ["--where", self.get_option("where")]
        if self.get_option("store"):
            line += ["--store", self.get_option("store")]
        for option in ("token_file", "ca"):
            if self.get_option(option):
                line += ["--" + option.replace("_", "-"), self.get_option(option)]
        ran = subprocess.run(line, capture_output=True, timeout=self.get_option("timeout"), check=False)
        said = ran.stderr.decode(errors="replace").strip()
        if ran.returncode != 0:
            raise AnsibleParserError(f"{line[0]} inventory ended with {ran.returncode}: {said}")
        return ran.stdout

    def _fill(self, found):
        hostvars = found["_meta"]["hostvars"]
        groups = {name: group for name, group in found.items() if name != "_meta"}
        names = {name: self.inventory.add_group(name) for name in groups}
        for name, group in groups.items():
            for host in group.get("hosts", ()):
                self.inventory.add_host(host, group=names[name])
            for child in group.get("children", ()):
                if child not in names:
                    names[child] = self.inventory.add_group(child)
                self.inventory.add_child(names[name], names[child])
            for variable, value in group.get("vars", {}).items():
                self.inventory.set_variable(names[name], variable, value)
        strict = self.get_option("strict")
        for host, variables in hostvars.items():
            for variable, value in variables.items():
                self.inventory.set_variable(host, variable, value)
            self._set_composite_vars(self.get_option("compose"), variables, host, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict=strict)
