//! What is looked at, dumped and compared on another machine: as in `sources` and `proof`, by a few programs that every Linux has (GNU
//! find and stat).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use shoal_agent::Fault;

use super::program::{SHORT, Stop};
use super::proof::Node;
use super::settings::Settings;
use super::sources;
use super::ssh::{Over, Way, quote};
use crate::item::{Job, Last, Size};
use crate::name::AbsPath;

/// Prints how large a path is: `size <octets> <files>`; or `missing`, `bad <why>`.
const SIZE: &str = "size() {
    if [ -L \"$1\" ]; then
        printf 'bad it is a link, of which restic would keep nothing but where it leads: name %s in the policy\\n' \"$(readlink -- \"$1\")\"
        return
    fi
    if [ ! -e \"$1\" ]; then echo missing; return; fi
    e=$(mktemp) || exit 1
    if [ -d \"$1\" ]; then d=${1%/}/; else d=$1; fi
    one=$2
    shift 2
    find \"$d\" $one \"$@\" ! -type d -printf '%s\\n' 2>\"$e\" | awk '{s += $1} END {printf \"size %.0f %d\\n\", s, NR}'
    grep -v 'No such file or directory' \"$e\" | head -n 1 | sed 's/^/bad /'
    rm -f \"$e\"
}
";

/// Looks at every path of a job on its machine.
///
/// # Errors
/// As [`sources::measure`]; and the machine cannot be asked.
pub(crate) async fn measure(
    settings: &Settings,
    over: &Over,
    job: &Job,
    last: Option<&Last>,
    stop: &mut Stop,
) -> Result<BTreeMap<AbsPath, Size>, Fault> {
    let what = "look at what is to be backed up";
    sources::named(settings, job)?;
    let mut script = SIZE.to_owned();
    for path in &job.mounted {
        let path = quote(path.as_str());
        let _ = writeln!(
            script,
            "[ \"$(stat -c %d -- {path})\" != \"$(stat -c %d -- {path}/..)\" ] || [ {path} -ef {path}/.. ] || echo unmounted {path}"
        );
    }
    if !settings.allow.iter().any(|folder| folder.as_str() == "/") {
        for (kind, path) in
            settings.allow.iter().map(|p| ("allow", p)).chain(job.paths.iter().map(|p| ("real", p)))
        {
            let _ =
                writeln!(script, "printf '%s %s\\n' {kind} \"$(readlink -f -- {})\"", quote(path.as_str()));
        }
    }
    let one = if job.one_file_system { "-xdev" } else { "" };
    let without: Vec<String> =
        sources::whole(job).map(|path| format!(" -path {} -prune -o", quote(path))).collect();
    for path in &job.paths {
        let _ = writeln!(script, "echo path; size {} '{one}'{}", quote(path.as_str()), without.concat());
    }
    let text = over.shell(what, &script, Way::Beside { leaves: None }, settings.limit, stop).await?;
    if let Some(path) = text.lines().find_map(|line| line.strip_prefix("unmounted ")) {
        return Err(Fault::new(what, format!("{path} is not mounted")).next("mount it"));
    }
    if let Some(path) = leads_out(&text) {
        let why = format!("a path leads to {path}, which may not be backed up from here");
        return Err(Fault::new(what, why));
    }
    let mut sizes = BTreeMap::new();
    let parts: Vec<&str> = text.split("path\n").skip(1).collect();
    for (path, said) in job.paths.iter().zip(parts) {
        let bad = |why: &str| Fault::new(what, format!("{path}: {why}"));
        if said.trim() == "missing" {
            return Err(Fault::new(what, format!("{path} is missing")));
        }
        if let Some(why) = said.lines().find_map(|line| line.strip_prefix("bad ")) {
            return Err(bad(why));
        }
        let numbers: Option<Vec<u64>> = said.lines().find_map(|line| {
            line.strip_prefix("size ")?.split(' ').map(|number| number.parse().ok()).collect()
        });
        let Some([bytes, files]) = numbers.as_deref() else { return Err(bad("its size cannot be told")) };
        sizes.insert(path.clone(), Size { bytes: *bytes, files: *files });
    }
    if sizes.len() != job.paths.len() {
        return Err(Fault::new(what, "the machine did not answer for every path"));
    }
    sources::shrunk(job, last, &sizes)?;
    Ok(sizes)
}

/// The first path of the policy that leads out of the folders that are allowed (`allow <folder>`, `real <path>`, each as it is without
/// links). One that is missing is empty there: a folder holds nothing then, and of a path it is said so later.
fn leads_out(text: &str) -> Option<&str> {
    let said = |word: &'static str| {
        text.lines().filter_map(move |line| line.strip_prefix(word)).filter(|path| !path.is_empty())
    };
    let inside = |path: &str| {
        said("allow ").any(|folder| path.parse::<AbsPath>().is_ok_and(|path| path.is_in(folder)))
    };
    said("real ").find(|path| !inside(path))
}

/// Makes the dumps of a job on its machine, in this folder, which is made anew.
///
/// # Errors
/// As [`sources::dump`]; and the machine cannot be asked.
pub(crate) async fn dump(
    settings: &Settings,
    over: &Over,
    job: &Job,
    spool: &str,
    stop: &mut Stop,
) -> Result<BTreeMap<AbsPath, Size>, Fault> {
    let mut sizes = BTreeMap::new();
    for one in sources::dumps(settings, job)? {
        let what = format!("make the dump {}", one.file);
        let path = format!("{spool}/{}", one.file);
        let words: Vec<String> = one.command.iter().map(|word| quote(word)).collect();
        let first = if sizes.is_empty() {
            format!("rm -rf {0} && mkdir -p {0} && ", quote(spool))
        } else {
            String::new()
        };
        let script = format!("{first}{} >{1} && stat -c %s -- {1}", words.join(" "), quote(&path));
        let way = Way::Alone { leaves: Some(spool) };
        let text = over.shell(&what, &script, way, settings.limit, stop).await?;
        let bytes = text.trim().parse().map_err(|e| Fault::new(&what, e))?;
        if bytes == 0 {
            return Err(Fault::new(what, "it is empty"));
        }
        let path = path.parse().map_err(|e: String| Fault::new(what, e))?;
        sizes.insert(path, Size { bytes, files: 1 });
    }
    Ok(sizes)
}

/// Removes a folder of the agent's own over there; or makes it anew.
pub(crate) async fn clear(
    over: &Over,
    folder: &str,
    anew: bool,
    way: Way<'_>,
    stop: &mut Stop,
) -> Result<(), Fault> {
    let make = if anew { format!(" && mkdir -p {}", quote(folder)) } else { String::new() };
    let script = format!("rm -rf {}{make}", quote(folder));
    over.shell("clear a folder", &script, way, SHORT, stop).await.map(|_| ())
}

/// How many octets have room in a folder over there, as who is not root sees it.
///
/// # Errors
/// The machine cannot be asked, or does not say.
pub(crate) async fn free(over: &Over, folder: &str, stop: &mut Stop) -> Result<u64, Fault> {
    let what = "see how much room there is";
    let script = format!("stat -f -c '%a %S' -- {}", quote(folder));
    let text = over.shell(what, &script, Way::Beside { leaves: None }, SHORT, stop).await?;
    blocks(&text).ok_or_else(|| Fault::new(what, format!("it cannot be told of {folder}: {}", text.trim())))
}

/// Octets of so many blocks of such a size.
fn blocks(text: &str) -> Option<u64> {
    let (count, size) = text.trim().split_once(' ')?;
    Some(count.parse::<u64>().ok()?.saturating_mul(size.parse().ok()?))
}

/// Compares restored files with those that are there: how many are the same, and how many changed since.
///
/// # Errors
/// One was restored otherwise than it is there.
pub(crate) async fn compare(
    over: &Over,
    folder: &str,
    sample: &[Node],
    limit: Duration,
    stop: &mut Stop,
) -> Result<(usize, usize), Fault> {
    let mut script =
        "as_then() { [ ! -L \"$1\" ] && [ \"$(stat -c '%s %Y' -- \"$1\" 2>/dev/null)\" = \"$2\" ]; }
one() {
    [ \"$(stat -c %s -- \"$1\")\" = \"${3% *}\" ] || { echo \"wrong $2\"; return; }
    if ! as_then \"$2\" \"$3\"; then echo changed; elif cmp -s -- \"$1\" \"$2\"; then echo same
    elif as_then \"$2\" \"$3\"; then echo \"differs $2\"; else echo changed; fi
}
"
        .to_owned();
    for node in sample {
        let then = format!("{} {}", node.size, node.mtime.as_second());
        let _ = writeln!(
            script,
            "one {} {} {}",
            quote(&format!("{folder}{}", node.path)),
            quote(&node.path),
            quote(&then)
        );
    }
    let what = "compare restored files";
    let text = over.shell(what, &script, Way::Beside { leaves: Some(folder) }, limit, stop).await?;
    let count = |word: &str| text.lines().filter(|line| *line == word).count();
    let (same, changed) = (count("same"), count("changed"));
    if same + changed == sample.len() {
        return Ok((same, changed));
    }
    let odd = text.lines().find(|line| line.starts_with("differs ") || line.starts_with("wrong "));
    Err(Fault::new(
        what,
        format!("one was restored otherwise than it is there: {}", odd.unwrap_or("nothing was said")),
    ))
}

/// What the machine calls itself, what time it is there, and which of these numbers a process of restic has.
pub(crate) async fn living(
    over: &Over,
    pids: &[u64],
    stop: &mut Stop,
) -> Result<(String, i64, BTreeSet<u64>), Fault> {
    let mut script = "uname -n\ndate +%s\n[ -e /proc/1/comm ] || exit 3\n".to_owned();
    for pid in pids {
        let _ = writeln!(script, "case $(cat /proc/{pid}/comm 2>/dev/null) in restic*) echo {pid};; esac");
    }
    let text = over
        .shell(
            "see whether the holder of a lock lives",
            &format!("{script}:"),
            Way::Beside { leaves: None },
            SHORT,
            stop,
        )
        .await?;
    let mut lines = text.lines();
    let name = lines.next().unwrap_or_default().to_owned();
    let now = lines.next().and_then(|now| now.trim().parse().ok());
    let now = now.ok_or_else(|| Fault::new("see what time it is there", format!("{name} does not say")))?;
    Ok((name, now, lines.filter_map(|line| line.trim().parse().ok()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left out of `/` is so by its whole path, and paths that begin with two slashes are others.
    #[test]
    fn everything_is_measured_without_what_is_left_out() {
        let script = format!(
            "{SIZE}\nfind() {{ echo 7; echo \"$@\" >&3; }}\nsize \"$1\" '' -path /proc -prune -o 3>&2\n"
        );
        for (path, asked) in [("/", "/ -path /proc -prune -o "), ("/proc", "/proc/ -path /proc -prune -o ")] {
            let ended = std::process::Command::new("sh").args(["-c", &script, "sh", path]).output().unwrap();
            let (out, said) =
                (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
            assert_eq!(out, "size 7 1\n");
            assert!(said.starts_with(asked), "{said}");
        }
    }

    #[test]
    fn room_is_told_as_gnu_stat_does() {
        let said =
            std::process::Command::new("stat").args(["-f", "-c", "%a %S", "--", "/"]).output().unwrap();
        assert!(blocks(&String::from_utf8(said.stdout).unwrap()).is_some());
        assert_eq!(blocks("25 4096\n"), Some(102_400));
        assert_eq!((blocks(""), blocks("? 4096")), (None, None));
    }

    #[test]
    fn what_leads_out_is_found_also_where_a_folder_is_missing() {
        for (text, out) in [
            ("allow /srv/app/data\nallow /var/www\nreal /var/www/x\npath\n", None),
            ("allow /srv/app/data\nallow /var/www\nreal /etc/y\npath\n", Some("/etc/y")),
            // `/srv/app` is not there: readlink says nothing.
            ("allow \nallow /var/www\nreal /etc/y\npath\n", Some("/etc/y")),
            ("allow \nreal /etc/y\n", Some("/etc/y")),
            ("allow /var/www\nreal \n", None),
            ("size 1 1\n", None),
        ] {
            assert_eq!(leads_out(text), out, "{text:?}");
        }
    }
}
