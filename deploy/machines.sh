# shellcheck shell=bash
# The machines of deploy/up: whether they can be made here, what they begin as, their network, and their end. Sourced by deploy/up and
# deploy/down after deploy/lib.sh, with the folder that all of it is kept in as `state`.
#
# Machines are in $state/vm, what they begin as in $state/base/tree, and the addresses that they have in $state/net.
state=${state:?}
export PATH=$PATH:/usr/sbin:/sbin

# The bridge that they are on: another one for each folder.
bridge() { printf 'shoal-%s\n' "$(sha256sum <<<"$state" | cut -c1-8)"; }

# hindered: says why no machines can be made here, and succeeds; or that nothing speaks against it, and fails. Installs nothing.
hindered() {
    [ "${SHOAL_MACHINES:-}" != no ] || { echo "SHOAL_MACHINES=no"; return; }
    [ "$(id -u)" = 0 ] || { echo "this is not root"; return; }
    # The agent gives the path to the kernel as an option of a mount, and the agent's configuration has it between quotes.
    [[ $state =~ ^[A-Za-z0-9/._+@=~-]+$ ]] || { echo "$state has more than letters, digits and /._+@=~- in its name"; return; }
    # The kernel shows what is mounted as far as it can be reached from here.
    grep -qE '^([^ ]+ ){4}/ ' /proc/self/mountinfo || { echo "this is a chroot, in which systemd-nspawn starts nothing"; return; }
    [ -d /sys/fs/cgroup ] || { echo "there is no /sys/fs/cgroup"; return; }
    command -v dpkg-query >/dev/null || { echo "the base tree is made of packages that dpkg installed, and there is no dpkg"; return; }
    unshare --mount --net true 2>/dev/null || { echo "this root may not make namespaces and mounts"; return; }
    return 1
}

# ready: what machines take: programs, the base tree, and a first boot that shows that it works. Prints why not, and fails.
ready() {
    command -v systemd-nspawn >/dev/null || say "installing systemd-container, for machines"
    (packages systemd-nspawn=systemd-container ip=iproute2) >"$state/log/machines.log" 2>&1 9>&- ||
        { echo "systemd-container and iproute2 could not be installed; see $state/log/machines.log"; return 1; }
    base_tree "$state/base/tree" >>"$state/log/machines.log" 2>&1 9>&- ||
        { echo "no base tree could be made of this system; see $state/log/machines.log"; return 1; }
    boots "$state/base/tree" >>"$state/log/machines.log" 2>&1 9>&- ||
        { echo "systemd-nspawn boots nothing here; see $state/log/machines.log"; return 1; }
}

# boots TREE: whether a machine can: it ends at once, and leaves nothing. As shoal-vm starts them.
boots() {
    local folder=$state/base/first code=0 by=(grouped)
    [ ! -d /run/systemd/system ] ||
        by=(systemd-run --quiet --collect --wait --pipe --slice=machine.slice --property=Delegate=yes --property=KillMode=mixed --)
    rm -rf --one-file-system "$folder"
    mkdir -p "$folder/"{upper,work,root}
    # shellcheck disable=SC2016
    "${by[@]}" timeout --kill-after=5 60 unshare --mount --propagation slave sh -euc '
        mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
        exec systemd-nspawn --quiet --boot --keep-unit --register=no --settings=no --link-journal=no --resolv-conf=off --timezone=off \
            --console=pipe --private-network --machine=shoal-first --directory="$2/root" systemd.unit=exit.target' \
        sh "$1" "$folder" </dev/null || code=$?
    ungroup "shoal-first-$$"
    rm -rf --one-file-system "$folder"
    return "$code"
}

# Control groups, where no systemd keeps them.
groups=(/sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd)

# grouped COMMAND…: runs it in groups of its own, which it takes for the topmost.
grouped() (
    for place in "${groups[@]}"; do
        [ ! -e "$place/cgroup.procs" ] || { mkdir -p "$place/shoal-first-$$" && echo "$BASHPID" >"$place/shoal-first-$$/cgroup.procs"; }
    done
    exec "$@"
)

# ungroup NAME: removes such groups. What ended in them may take a moment to be gone.
ungroup() {
    local place tries
    for place in "${groups[@]/%//$1}"; do
        for tries in {1..50}; do
            [ -d "$place" ] || break
            find "$place" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
        done
        [ ! -d "$place" ] || say "$place stays after $tries tries"
    done
}

# The base tree.

# rests_on PACKAGE…: the installed packages that are essential, these, and all that they need.
rests_on() {
    dpkg-query -W -f='${db:Status-Abbrev}\t${binary:Package}\t${Package}\t${Essential}\t${Provides}\t${Pre-Depends}, ${Depends}\n' |
        awk -F '\t' -v wanted="$*" '
            function name(text) { sub(/[ (:].*/, "", text); return text }
            $1 !~ /^.i/ { next }
            {
                full[$3] = $2; needs[$3] = $6
                if ($4 == "yes") todo[++n] = $3
                for (i = split($5, all, /, */); i > 0; i--) by[name(all[i])] = $3
            }
            END {
                for (i = split(wanted, all, " "); i > 0; i--) todo[++n] = all[i]
                for (k = 1; k <= n; k++) {
                    one = todo[k] in full ? todo[k] : by[todo[k]]
                    if (one == "" || done[one]++) continue
                    print full[one]
                    for (i = split(needs[one], all, /, */); i > 0; i--) {
                        # Of several any one will do.
                        m = split(all[i], any, / *\| */)
                        for (j = 1; j <= m; j++) if (name(any[j]) in full || name(any[j]) in by) { todo[++n] = name(any[j]); break }
                    }
                }
            }'
}

# belongs PACKAGE…: the files and folders of these, without what only people read.
belongs() {
    local path
    dpkg-query -L "$@" | grep '^/.' |
        grep -vE '^/usr/share/(doc|man|info|locale|lintian|bug)/|/hwdb\.d/|^/\.$' | sort -u |
        while read -r path; do
            # Some machines keep no translations, say, of what they have.
            if [ -e "$path" ] || [ -L "$path" ]; then printf '%s\n' "${path#/}"; fi
        done
}

# base_tree FOLDER: a system with systemd, made of packages that are installed here; made once. Takes a second, and 75 MB.
base_tree() {
    local tree=$1 new=$1.new link packages
    [ ! -d "$tree" ] || return 0
    rm -rf --one-file-system "$new"
    # It has programs that make root of whoever runs them, and gets no security updates: root alone reaches it.
    mkdir -p "$new" && chmod 700 "$(dirname "$tree")" && chmod 755 "$new" || return 1
    # Where /bin and others are links, what is behind them goes to where they lead.
    for link in /bin /sbin /lib*; do
        if [ -L "$link" ]; then cp -P "$link" "$new/" && mkdir -p "$new/$(readlink "$link")" || return 1; fi
    done
    mapfile -t packages < <(rests_on systemd)
    belongs "${packages[@]}" |
        tar --create --directory=/ --no-recursion --no-unquote --verbatim-files-from --files-from=- |
        tar --extract --directory="$new" --same-permissions --keep-directory-symlink || return 1
    [ -e "$new/bin/sh" ] || ln -s bash "$new/bin/sh" || return 1
    accounts "$new" && ldconfig -r "$new" && greeting "$new" || return 1
    mv -T "$new" "$tree"
}

# accounts TREE: those that every system has, and none that can log in; systemd makes those of its services.
accounts() {
    local base=$1/usr/share/base-passwd
    cat "$base/passwd.master" >"$1/etc/passwd" && cat "$base/group.master" >"$1/etc/group" &&
        sed 's/^\([^:]*\):.*/\1:*:19000:0:99999:7:::/' "$1/etc/passwd" >"$1/etc/shadow" && chmod 640 "$1/etc/shadow"
}

# greeting TREE: a machine says at port 80 who it is. Nobody logs in, so nothing waits for that.
greeting() {
    local units=$1/etc/systemd/system
    mkdir -p "$units/sockets.target.wants"
    cp deploy/example/machine/hello.socket deploy/example/machine/hello@.service "$units/" || return 1
    ln -s ../hello.socket "$units/sockets.target.wants/hello.socket"
    ln -s /dev/null "$units/systemd-logind.service"
    ln -s /dev/null "$units/getty.target"
}

# The network.

# network: the bridge, with an address of this machine's. Prints why there is none, and fails. The addresses are sixteen of those that are
# for documentation, like all of the example fleet, and that nothing here leads to; once taken they stay, because machines have them.
network() {
    local bridge tries
    bridge=$(bridge)
    mkdir -p "$state/vm"
    if [ ! -e "$state/net" ]; then
        for tries in {1..50}; do
            net=203.0.113.$((16 * (4 + RANDOM % 12)))/28
            [ -n "$(ip -4 route show root "$net")" ] || break
        done
        # Left by a start that was killed before it had written them down.
        ip link delete "$bridge" 2>/dev/null || true
        [ -z "$(ip -4 route show root "$net")" ] || { echo "no addresses for them are free after $tries tries"; return 1; }
        echo "$net" >"$state/net.new" && mv -f "$state/net.new" "$state/net" || return 1
    fi
    net=$(cat "$state/net")
    if ! ip link show "$bridge" >/dev/null 2>&1; then
        [ -z "$(ip -4 route show root "$net")" ] || { echo "their addresses, $net, are somewhere else by now"; return 1; }
        ip link add "$bridge" type bridge 2>>"$state/log/machines.log" || { echo "no bridge can be made; see $state/log/machines.log"; return 1; }
    fi
    { ip address replace "$(within 1)/28" dev "$bridge" && ip link set "$bridge" up; } 2>>"$state/log/machines.log" ||
        { echo "the bridge $bridge cannot be set up; see $state/log/machines.log"; return 1; }
}

# within N: the Nth of these addresses.
within() {
    local first
    first=$(cut -d/ -f1 "$state/net")
    printf '%s.%s\n' "${first%.*}" $((${first##*.} + $1))
}

# The end.

# is_here PID: whether this process is of this system. What runs in another, such as a container, may have folders of the same names.
is_here() { [ "$(readlink "/proc/$1/ns/pid")" = "$(readlink /proc/self/ns/pid)" ] && [ "/proc/$1/root" -ef / ]; }

# running: the processes that started the machines: each names its folder.
running() {
    local pid
    grep -lz "^--directory=$state/vm/machines/" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 | while read -r pid; do
        if is_here "$pid"; then echo "$pid"; fi
    done
}

# names: what the agent calls the machines that are there, in the kernel: after the ids of their hosts, as the marks in their folders have them.
names() {
    local mark
    for mark in "$state"/vm/machines/*/machine.json; do
        [ -e "$mark" ] || continue
        printf 'shoal-vm-%s\n' "$(sed -n '0,/^  "id": "\(.*\)",$/s//\1/p' "$mark" | tr -d '\n' | sha256sum | cut -c1-10)"
    done
}

# stop_machines: stops them, in an orderly way where they do so within 15 seconds, and removes their network. Their folders stay. It is
# for when no shoal-vm runs, which would start them again.
stop_machines() {
    local pids pid name folder began=$SECONDS told=' '
    [ -d "$state/vm" ] || return 0
    while mapfile -t pids < <(running) && [ "${#pids[@]}" != 0 ]; do
        for pid in "${pids[@]}"; do
            # A second word of this kind ends it at once: as is right for one that is not up yet, and may not have heard the first one.
            folder=$(tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | sed -n 's/^--directory=\(.*\)\/root$/\1/p') || continue
            if [[ $told != *" $pid "* ]] || [ ! -e "$folder/report/up" ]; then kill -TERM "$pid" 2>/dev/null || true; fi
            told+="$pid "
        done
        [ $((SECONDS - began)) -lt 15 ] || kill -KILL "${pids[@]}" 2>/dev/null || true
        [ $((SECONDS - began)) -lt 25 ] || { say "machines do not end: processes ${pids[*]}"; return 1; }
        sleep 0.1 9>&-
    done
    for name in $(names); do
        [ ! -e "/run/netns/$name" ] || leave "$name"
        ungroup "$name"
    done
    ip link delete "$(bridge)" 2>/dev/null || true
}

# leave NAMESPACE: removes it. Where systemd-nspawn was killed, what it had started may be there still.
leave() {
    local pids tries
    for tries in {1..100}; do
        mapfile -t pids < <(ip netns pids "$1" 2>/dev/null)
        [ "${#pids[@]}" != 0 ] || break
        kill -KILL "${pids[@]}" 2>/dev/null || true
        sleep 0.1
    done
    [ "${#pids[@]}" = 0 ] || say "processes in $1 do not end after $tries tries: ${pids[*]}"
    ip netns delete "$1"
}
