//! Generations in a folder: what a change writes, and that it is whole whatever was there.

use std::os::unix::fs::MetadataExt as _;

use super::*;

fn texts(shards: &BTreeMap<Shard, String>) -> Texts {
    let (server, none) = ("# server\n".to_owned(), Some("# no secrets\n".to_owned()));
    Texts { shards: shards.clone(), server, vault: None, if_no_vault: none }
}

#[test]
fn a_change_writes_its_shards_and_links_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::new(dir.path(), "cfg", "secrets.resource");
    assert_eq!(tree.look().unwrap(), None);
    let all: BTreeMap<Shard, String> = (0..=255).map(|n| (Shard(n), format!("# {n}\n"))).collect();
    let write = |before: &Generation, shards: &BTreeMap<Shard, String>| {
        let mut written = tree.write(before, &Tree::next(before), &texts(shards), None).unwrap();
        written.unsynced().parts(tree.folder()).into_iter().for_each(|part| part().unwrap());
        written
    };
    let first = write(&Generation::default(), &all).generation;
    tree.switch(&first, false).unwrap();
    assert_eq!(tree.look().unwrap().as_ref(), Some(&first));
    let before = tree.stamps(&first).unwrap();
    assert_eq!(before.len(), 258);
    let one = BTreeMap::from([(Shard(0x7a), "# new\n".to_owned()), (Shard(0x7b), String::new())]);
    let second = write(&first, &one).generation;
    // Nobody has seen it yet, and another instance that begins leaves it to who is at it.
    assert_eq!(tree.look().unwrap().as_ref(), Some(&first));
    let turn = tree.turn().unwrap().unwrap();
    let other = Tree::new(dir.path(), "cfg", "secrets.resource");
    other.sweep().unwrap();
    assert!(other.turn().unwrap().is_none() && tree.generation_path(&second.name).exists());
    drop(turn);
    other.sweep().unwrap();
    assert!(!tree.generation_path(&second.name).exists(), "a candidate that nothing reaches goes");
    let Written { generation: second, stamps: made, .. } = write(&first, &one);
    tree.switch(&second, true).unwrap();
    tree.seal().unwrap();
    let after = tree.stamps(&second).unwrap();
    assert_eq!(after.len(), 257);
    // What is not the same is what it says that it wrote: the shard and the server's own file.
    let differ: Stamps = after.iter().filter(|(at, is)| before[at] != **is).map(|(a, b)| (*a, *b)).collect();
    assert_eq!(differ, made);
    assert_eq!(differ.keys().collect::<Vec<_>>(), [&Piece::Server, &Piece::Shard(Shard(0x7a))]);
    assert_eq!(tree.read(&second, Piece::Shard(Shard(0x7a))).unwrap(), "# new\n");
    // What leads to a set that stays is the same link.
    let inode = |of: &Generation, set: &str| {
        fs::symlink_metadata(tree.generation_path(&of.name).join(set)).unwrap().ino()
    };
    let same = |set: &&str| inode(&first, set) == inode(&second, set);
    assert_eq!(["0", "6", "7", "8", "f"].iter().filter(|set| same(set)).count(), 4);
    assert!(!same(&"7"));
    // Back, and forward for good.
    assert!(tree.put_back().unwrap());
    assert_eq!(tree.look().unwrap().as_ref(), Some(&first));
    assert!(!tree.put_back().unwrap());
    tree.switch(&second, true).unwrap();
    tree.settle().unwrap();
    tree.sweep().unwrap();
    assert!(!tree.put_back().unwrap());
    let count = |kind: &str| fs::read_dir(dir.path().join(kind)).unwrap().count();
    assert_eq!((count("gens"), count("sets")), (1, 16));
    let mode =
        |name: &str| fs::metadata(tree.generation_path(&second.name).join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("server.cfg"), mode("secrets.resource")), (0o644, 0o640));
}

/// A folder in which one generation follows the other, as batches have them follow.
struct Scene {
    dir: tempfile::TempDir,
    tree: Tree,
    now: Generation,
    spare: Option<Spare>,
    /// What stands there, as it was wanted.
    wanted: BTreeMap<Shard, String>,
}

/// The files of hosts that a generation has.
fn stands(tree: &Tree, generation: &Generation) -> BTreeMap<Shard, String> {
    let of_shard = |piece| match piece {
        Piece::Shard(shard) => Some((shard, tree.read(generation, piece).unwrap())),
        Piece::Server | Piece::Vault => None,
    };
    tree.stamps(generation).unwrap().into_keys().filter_map(of_shard).collect()
}

/// Everything below a folder: in which folder, by which name, and which file.
fn entries(folder: &Path, into: &mut BTreeSet<(u64, OsString, u64)>) {
    let at = fs::metadata(folder).unwrap().ino();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let meta = entry.metadata().unwrap();
        into.insert((at, entry.file_name(), meta.ino()));
        if meta.is_dir() {
            entries(&entry.path(), into);
        }
    }
}

impl Scene {
    /// All shards, and folders to be used again for each set.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path(), "cfg", "secrets.resource");
        let (now, wanted) = (Generation::default(), BTreeMap::new());
        let mut scene = Self { dir, tree, now, spare: None, wanted };
        let all = (0..=255).map(|n| (Shard(n), format!("# {n}\n"))).collect();
        scene.change(&texts(&all));
        scene.one(0, "# second\n");
        assert_eq!(scene.unreached(), (1, 16));
        scene
    }

    fn write(&mut self, texts: &Texts) -> io::Result<Written> {
        self.tree.write(&self.now, &Tree::next(&self.now), texts, self.spare.take())
    }

    /// A change; how often the disk is waited for before the switch.
    fn change(&mut self, texts: &Texts) -> usize {
        let mut written = self.write(texts).unwrap();
        let parts = written.unsynced().parts(self.tree.folder());
        let syncs = parts.len();
        parts.into_iter().for_each(|part| part().unwrap());
        let Written { generation, spare, .. } = written;
        self.tree.switch(&generation, false).unwrap();
        self.tree.seal().unwrap();
        let before = std::mem::replace(&mut self.now, generation);
        self.spare = match spare {
            Some(mut spare) => {
                spare.keep(before, &self.now);
                if spare.lacks_some_of(&self.now) {
                    self.tree.provide(&self.now, spare).unwrap()
                } else {
                    Some(spare)
                }
            }
            None => self.tree.sweep().unwrap().then(|| Spare::beside(&self.now)),
        };
        self.wanted.extend(texts.shards.clone());
        self.wanted.retain(|_, text| !text.is_empty());
        self.is_whole();
        syncs
    }

    fn one(&mut self, shard: u8, text: &str) -> usize {
        self.change(&one(shard, text))
    }

    /// What is reached is what was wanted.
    fn is_whole(&self) {
        assert_eq!(self.tree.look().unwrap().as_ref(), Some(&self.now));
        assert_eq!(stands(&self.tree, &self.now), self.wanted);
        assert_eq!(self.tree.read(&self.now, Piece::Server).unwrap(), "# server\n");
        assert!(!self.tree.read(&self.now, Piece::Vault).unwrap().is_empty());
    }

    /// The folders of generations and of sets that are not part of what is reached.
    fn spares(&self) -> [Vec<PathBuf>; 2] {
        let reached = |name: &str| *name == self.now.name || self.now.sets.values().any(|set| set == name);
        ["gens", "sets"].map(|kind| {
            let all = fs::read_dir(self.dir.path().join(kind)).unwrap().map(|entry| entry.unwrap());
            let not_reached = all.filter(|entry| !reached(entry.file_name().to_str().unwrap()));
            not_reached.map(|entry| entry.path()).collect()
        })
    }

    fn unreached(&self) -> (usize, usize) {
        let [generations, sets] = self.spares();
        (generations.len(), sets.len())
    }

    /// A folder that would be used again: of this set, or that of the generation.
    fn spare(&self, set: Option<&str>) -> PathBuf {
        let [mut generations, sets] = self.spares();
        let of_set = |path: &PathBuf, set: &str| path.file_name().unwrap().to_str().unwrap().starts_with(set);
        match set {
            Some(set) => sets.into_iter().find(|path| of_set(path, &format!("{set}-"))).unwrap(),
            None => generations.remove(0),
        }
    }
}

fn one(shard: u8, text: &str) -> Texts {
    texts(&BTreeMap::from([(Shard(shard), text.to_owned())]))
}

#[test]
fn a_change_is_made_of_what_was_there_before_the_last() {
    let mut scene = Scene::new();
    for n in 0..48u8 {
        let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
        entries(scene.dir.path(), &mut before);
        let shard = n.wrapping_mul(37);
        let syncs = scene.one(shard, &format!("# new {n}\n"));
        entries(scene.dir.path(), &mut after);
        // The generation's folder and `current`; in it the server's file, and what leads to the set of this change and of the last; in
        // the set the file of this change, and that of the last in it.
        let made: Vec<_> = after.difference(&before).collect();
        assert!(made.len() <= 7, "{shard:x}: {made:?}");
        // Two files, the folders that they are in, and the one that the generation is in.
        assert_eq!(syncs, 5);
        assert_eq!(scene.unreached(), (1, 16), "nothing else is left, and nothing else is there");
    }
    // Nothing comes back that has gone meanwhile.
    for (shard, text) in [(0x7a, ""), (0x7b, "# b\n"), (0x7c, "# c\n"), (0x7a, "# a\n"), (0x7c, "")] {
        scene.one(shard, text);
    }
    assert!(!scene.wanted.contains_key(&Shard(0x7c)));
}

/// Secrets that are no longer in use, and what takes much room.
#[test]
fn not_everything_stays_to_be_used_again() {
    let mut scene = Scene::new();
    let rotated = Texts { vault: Some("# another\n".to_owned()), ..one(7, "# new\n") };
    scene.change(&rotated);
    assert_eq!(scene.unreached(), (0, 0));
    assert_eq!(scene.tree.read(&scene.now, Piece::Vault).unwrap(), "# another\n");
    scene.one(7, "# again\n");
    assert_eq!(scene.unreached(), (1, 16));
    let many = (0..=255).step_by(9).map(|n| (Shard(n), format!("# many {n}\n"))).collect();
    scene.change(&texts(&many));
    assert_eq!(scene.unreached(), (0, 0));
    // A set that has no hosts any more has no folder.
    let none = (0x30..=0x3f).map(|n| (Shard(n), String::new())).collect();
    scene.change(&texts(&none));
    assert_eq!((scene.unreached(), scene.now.sets.len()), ((0, 0), 15));
    for n in 0x40..0x4f {
        scene.one(n, "");
    }
    scene.one(0x4f, "");
    assert_eq!((scene.unreached(), scene.now.sets.len()), ((0, 0), 14));
    scene.one(0x41, "# back\n");
}

/// Another instance that was killed while it swept, a person, or nobody knows who.
#[test]
fn a_folder_that_is_not_as_it_was_left_makes_no_other_files() {
    type Spoil = fn(&Scene);
    let spoils: [Spoil; 6] = [
        |scene| fs::remove_file(scene.spare(Some("7")).join("3.cfg")).unwrap(),
        |scene| fs::remove_file(scene.spare(None).join("3")).unwrap(),
        |scene| fs::remove_dir_all(scene.spare(Some("7"))).unwrap(),
        |scene| fs::remove_dir_all(scene.spare(None)).unwrap(),
        |scene| fs::write(scene.spare(Some("7")).join("strange.cfg"), "define").unwrap(),
        |scene| fs::write(scene.spare(None).join("strange.cfg"), "define").unwrap(),
    ];
    for spoil in spoils {
        let mut scene = Scene::new();
        spoil(&scene);
        scene.one(0x7b, "# new\n");
        let strange = scene.tree.generation_path(&scene.now.name).join("strange.cfg");
        assert!(!strange.exists() && !scene.tree.set(&scene.now.sets[&7]).join("strange.cfg").exists());
        for n in 0..3 {
            scene.one(0x7b + n, "# more\n");
        }
        assert_eq!(scene.unreached(), (1, 16));
    }
    // Nor does one that is another generation's, or while another instance is at work.
    let scene = Scene::new();
    let other = Some(Spare::beside(&Generation { name: "f".repeat(16), ..Generation::default() }));
    let written = scene.tree.write(&scene.now, &Tree::next(&scene.now), &one(7, "# new\n"), other);
    assert!(written.unwrap().spare.is_none());
    let turn = scene.tree.turn().unwrap().unwrap();
    assert!(scene.tree.provide(&scene.now, Spare::beside(&scene.now)).unwrap().is_none());
    drop(turn);
}

#[test]
fn stopped_while_a_folder_is_used_again_it_is_no_generation() {
    // Where nothing can take the place of a folder with something in it, it stops.
    for (set, at) in
        [(Some("7"), "0.cfg"), (Some("7"), "b.cfg"), (None, "0"), (None, "7"), (None, "server.cfg")]
    {
        let mut scene = Scene::new();
        // What the last change wrote is replaced, too.
        scene.one(0x70, "# last\n");
        let place = scene.spare(set).join(at);
        fs::remove_file(&place).unwrap();
        fs::create_dir_all(place.join("full")).unwrap();
        let stopped = scene.write(&one(0x7b, "# new\n"));
        assert!(stopped.is_err(), "{set:?} {at}");
        scene.is_whole();
        // Whoever begins next removes it.
        let other = Tree::new(scene.dir.path(), "cfg", "secrets.resource");
        assert!(other.sweep().unwrap());
        assert_eq!(scene.unreached(), (0, 0));
        scene.is_whole();
        for n in 0..3 {
            scene.one(0x7b + n, "# new\n");
        }
        assert_eq!(scene.unreached(), (1, 16));
    }
}

#[test]
fn what_there_is_to_go_back_to_is_not_written_into() {
    let mut scene = Scene::new();
    let (good, stood) = (scene.now.clone(), scene.wanted.clone());
    for n in 0..3 {
        let written = scene.write(&one(0x7b, &format!("# {n} that the server does not read\n"))).unwrap();
        scene.tree.switch(&written.generation, n == 0).unwrap();
        assert!(n == 0 || written.spare.is_none());
        (scene.now, scene.spare) = (written.generation, written.spare);
        assert_eq!(stands(&scene.tree, &good), stood);
    }
    assert!(scene.tree.put_back().unwrap());
    assert_eq!(scene.tree.look().unwrap(), Some(good));
    assert!(scene.tree.sweep().unwrap());
    assert_eq!(stands(&scene.tree, &scene.tree.look().unwrap().unwrap()), stood);
}
