# shellcheck shell=bash
# What deploy/up, deploy/install and the tests share. Sourced, with the repository's root as the working directory.

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# packages COMMAND=PACKAGE…: installs the packages whose command is not there.
packages() {
    local pair missing=() sudo=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ "${#missing[@]}" = 0 ] && return 0
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "these packages are missing, and this is not root and has no sudo; as root: apt-get install ${missing[*]}"
        sudo=(sudo)
    fi
    say "installing ${missing[*]}"
    "${sudo[@]}" apt-get update -q >&2
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >&2
}

# tools COMMAND=PACKAGE…: installs what building takes, and these.
tools() {
    local headers=()
    [ -e /usr/include/stdio.h ] || headers+=(no-such-command=libc6-dev)
    # What speaks with etcd is made from its protocol files, which build on these.
    [ -e /usr/include/google/protobuf/descriptor.proto ] || headers+=(no-such-command=libprotobuf-dev)
    packages cc=gcc ld=binutils protoc=protobuf-compiler "${headers[@]}" "$@"
}

# agents: the names of all agents that are programs.
agents() {
    local main
    for main in agents/*/src/main.rs; do
        main=${main#agents/}
        printf '%s\n' "${main%%/*}"
    done
}

# What of it is built, beyond what is quick to build; in words of cargo.
features=()

# build: builds server, command and agents; sets `bin` to where they are. Unoptimised, which takes a third of the time and
# is fast enough for a small fleet; SHOAL_PROFILE=release for the other kind.
build() {
    local profile=${SHOAL_PROFILE:-dev} name crates=(-p shoal-hostdb -p shoal-cli)
    for name in $(agents); do crates+=(-p "shoal-$name"); done
    cargo build --locked --profile "$profile" "${features[@]}" "${crates[@]}" >&2
    bin=${CARGO_TARGET_DIR:-$PWD/target}/$profile
    [ "$profile" = dev ] && bin=${bin%dev}debug
    return 0
}

# configure TEMPLATE FILE NAME=VALUE…: copies an agent's configuration, with @NAME@ replaced.
configure() {
    local text pair
    text=$(cat "$1")
    for pair in "${@:3}"; do text=${text//@${pair%%=*}@/${pair#*=}}; done
    printf '%s\n' "$text" >"$2"
}

# lacking FILE [all]: of what `shoal wait` said of what is not done, the first reason, or all of it, without how long that one look waited.
lacking() {
    local said=''
    [ "${2:-}" = all ] || said=$(sed -n '/^    /{s/^ *//p;q}' "$1")
    [ -n "$said" ] || said=$(sed '1s/ after [0-9.]* s:$/:/' "$1")
    printf '%s\n' "$said"
}
