# shellcheck shell=bash
# Reading what test runners print, and how long they took. Each function of the former reads a run's whole output, of `cargo nextest run` or of `cargo test -- --show-output`.
#
# nextest says `    FAIL [   0.1s] (3/9) crate::program module::test`, with the test's output indented below, and after
# `     Summary [   1.2s] 9 tests run: 7 passed (2 slow), 1 failed, 1 timed out, 0 skipped` the names once more, among those that
# passed.
# cargo test says for each program `---- module::test stdout ----` with the output below, a list of names after a line `failures:`, and
# `test result: FAILED. 7 passed; 2 failed; …`.

# passed_tests: how many passed.
passed_tests() {
    awk '
        /^ *Summary \[/ { nextest = 1; n = count($0) }
        /^test result:/ && !nextest { n += count($0) }
        function count(line) { return match(line, /[0-9]+ passed/) ? substr(line, RSTART) + 0 : 0 }
        END { print n + 0 }'
}

# failed_tests: the names of those that did not.
failed_tests() {
    awk '
        /^ *Running .*\(.*\)$/ { program = $0; sub(/.*\//, "", program); sub(/-[0-9a-f]+\)$/, "", program) }
        /^ *Doc-tests / { program = $2 " doc" }
        /^failures:$/ { listing = 1; next }
        listing && /^    [^ ]/ { print program " " substr($0, 5); next }
        listing && /^test result:/ { listing = 0 }
        listing && !/^$/ { listing = 0 }
        # A program that died names nobody; cargo does.
        /^error: test failed, to rerun pass/ { last = $0 }
        /\(signal: [0-9]+/ && last != "" { sub(/.*pass `/, "", last); sub(/`.*/, "", last); print last " died: " $0; last = "" }
        /^ *Summary \[/ { summary = 1; next }
        summary && /^ +(PASS|SLOW|LEAK) \[/ { next }
        summary && /^ +[A-Z][A-Z-]+ \[/ { sub(/^[^]]*\] *(\([0-9 ]*\/[0-9]+\) *)?/, ""); print }' | sort -u
}

# failed_output: the last 60 lines that each of those printed, after its name.
failed_output() {
    awk '
        function flush(  i) {
            if (name != "") {
                print name
                if (n > 60) print "  … " n - 60 " lines before"
                for (i = n > 60 ? n - 60 : 0; i < n; i++) print kept[i]
            }
            name = ""; n = 0
        }
        /^ *Summary \[/ { flush(); exit }
        /^ +[A-Z][A-Z-]+ \[ *[0-9.]+s\]/ {
            flush()
            if ($1 != "PASS" && $1 != "SLOW" && $1 != "LEAK" && $1 != "START" && $1 != "SETUP") name = $0
            next
        }
        # cargo test shows what passed first, then what failed, then the names of the latter.
        /^successes:$/ { flush(); good = 1; next }
        /^failures:$/ { flush(); good = 0; next }
        /^---- .* stdout ----$/ { flush(); if (!good) name = $0; next }
        /^test result:/ { flush(); next }
        name != "" { kept[n++] = $0 }
        END { flush() }'
}

# pace TOOK MOST LOAD: whether that was `fast` enough; `slow`, or `unknown` where the machine was not idle at the start.
pace() {
    if [ "$1" -le "$2" ]; then
        echo fast
    elif [ "${3%%.*}" -lt 1 ]; then
        echo slow
    else
        echo unknown
    fi
}
