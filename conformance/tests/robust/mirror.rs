// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lab and a mirror of packages that does what mirrors do. apt is the real one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::killed::{lab, lab_command};
use super::*;

/// What the mirror does to a request for a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Good,
    /// The file ends in the middle, and so does the connection.
    Cut,
    /// The file has its size, and other bytes.
    Other,
    /// An error of the server.
    Broken,
    /// There is no such file (any more).
    Gone,
    /// Nothing, and the connection stays.
    Silent,
    /// Half of the file, and the connection stays.
    Stalled,
}

/// A mirror of our own, at a port of its own.
struct Mirror {
    port: u16,
    mood: Arc<Mutex<Mood>>,
    /// Whether a package was asked for.
    asked: Arc<AtomicBool>,
}

impl Mirror {
    fn serve(files: HashMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mood = Arc::new(Mutex::new(Mood::Good));
        let asked = Arc::new(AtomicBool::new(false));
        let (files, moods, asks) = (Arc::new(files), Arc::clone(&mood), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, moods, asks) =
                    (Arc::clone(&files), Arc::clone(&moods), Arc::clone(&asks));
                // Whoever has asked may have gone, and that is no failure of the test.
                thread::spawn(move || drop(answer(stream, &files, &moods, &asks)));
            }
        });
        Self { port, mood, asked }
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Until a package is asked for.
    fn wait_for_a_download(&self) {
        wait_until("asked", || self.asked.load(Ordering::SeqCst), String::new);
    }
}

fn answer(
    stream: TcpStream,
    files: &HashMap<String, Vec<u8>>,
    mood: &Mutex<Mood>,
    asked: &AtomicBool,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut stream = stream;
    while let Some(first) = lines.next() {
        let first = first?;
        let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches("/./");
        for line in lines.by_ref() {
            if line?.is_empty() {
                break;
            }
        }
        asked.fetch_or(path.ends_with(".deb"), Ordering::SeqCst);
        let mood = if path.ends_with(".deb") { *mood.lock().unwrap() } else { Mood::Good };
        let head =
            |status: &str, len| format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\n\r\n");
        match (files.get(path), mood) {
            (_, Mood::Silent) => thread::sleep(PATIENCE),
            (_, Mood::Broken) => write!(stream, "{}", head("500 Internal Server Error", 0))?,
            (None, _) | (_, Mood::Gone) => write!(stream, "{}", head("404 Not Found", 0))?,
            (Some(bytes), mood) => {
                let mut bytes = bytes.clone();
                write!(stream, "{}", head("200 OK", bytes.len()))?;
                match mood {
                    Mood::Cut => {
                        bytes.truncate(bytes.len() / 2);
                        return stream.write_all(&bytes);
                    }
                    Mood::Stalled => {
                        stream.write_all(&bytes[..bytes.len() / 2])?;
                        thread::sleep(PATIENCE);
                        return Ok(());
                    }
                    Mood::Other => bytes.iter_mut().for_each(|byte| *byte ^= 0x55),
                    _ => {}
                }
                stream.write_all(&bytes)?;
            }
        }
    }
    Ok(())
}

/// The packages of a kernel in miniature, their index, and an apt that knows no other mirror.
fn packages(tool: &Tool) -> HashMap<String, Vec<u8>> {
    let make = r#"
set -e
cd "$ROBUST"
release=6.12.9-amd64
pack() {
    mkdir -p "pack/$1/DEBIAN"
    printf 'Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: nobody <nobody@localhost>\nDescription: none\n%s' \
        "$1" "$2" "${3:+Depends: $3
}" >"pack/$1/DEBIAN/control"
    dpkg-deb --root-owner-group -Znone -b "pack/$1" "$1.deb" >&2
}
mkdir -p pack/linux-image-$release/boot pack/linux-image-$release/lib/modules pack/busybox-static/bin \
    pack/linux-source-6.12/usr/src pack/linux-headers-$release/usr/src/linux-headers-$release \
    linux-source-6.12/samples/vfio-mdev
head -c 100000 /dev/urandom >pack/linux-image-$release/boot/vmlinuz-$release
for module in vfio vfio_iommu_type1 mdev; do echo $module >pack/linux-image-$release/lib/modules/$module.ko; done
echo busybox >pack/busybox-static/bin/busybox
echo driver >linux-source-6.12/samples/vfio-mdev/mtty.c
tar -cJf pack/linux-source-6.12/usr/src/linux-source-6.12.tar.xz linux-source-6.12
: >pack/linux-headers-$release/usr/src/linux-headers-$release/Makefile
pack linux-image-$release 6.12.9-1 ''
pack linux-headers-$release 6.12.9-1 'linux-headers-6.12.9-common (= 6.12.9-1), linux-kbuild-6.12.9, gcc-12'
pack linux-headers-6.12.9-common 6.12.9-1 ''
pack linux-kbuild-6.12.9 6.12.9-1 ''
pack linux-source-6.12 6.12.9-1 ''
pack busybox-static 1:1.35.0-4 ''
for deb in *.deb; do
    dpkg-deb -f "$deb"
    echo "Filename: ./$deb"
    echo "Size: $(wc -c <"$deb")"
    echo "SHA256: $(sha256sum "$deb" | cut -d' ' -f1)"
    echo
done >Packages
"#;
    let made = Command::new("sh").args(["-c", make]).env("ROBUST", tool.place.path()).output();
    ends_with(&made.unwrap(), 0);
    let read = |name: String| (name.clone(), fs::read(tool.path(&name)).unwrap());
    let names = names(tool.place.path()).into_iter();
    names.filter(|name| name.ends_with(".deb") || name == "Packages").map(read).collect()
}

/// An apt that knows this mirror and no other.
fn configure(tool: &Tool, port: u16) {
    let mut text = String::new();
    for directory in ["apt/state/lists/partial", "apt/cache/archives/partial", "apt/none"] {
        fs::create_dir_all(tool.path(directory)).unwrap();
    }
    for (key, name) in [
        ("Dir::State", "apt/state"),
        ("Dir::Cache", "apt/cache"),
        ("Dir::Etc::sourcelist", "apt/sources.list"),
        ("Dir::Etc::sourceparts", "apt/none"),
        ("Dir::Etc::parts", "apt/none"),
        ("Dir::Etc::preferencesparts", "apt/none"),
        ("Dir::State::status", "apt/status"),
    ] {
        writeln!(text, "{key} \"{}\";", tool.path(name).display()).unwrap();
    }
    writeln!(text, "APT::Architecture \"amd64\"; Acquire::http::Proxy \"DIRECT\";").unwrap();
    fs::write(tool.path("apt/status"), "").unwrap();
    fs::write(tool.path("apt/apt.conf"), text).unwrap();
    let source = format!("deb [trusted=yes] http://127.0.0.1:{port} ./\n");
    fs::write(tool.path("apt/sources.list"), source).unwrap();
}

fn run(tool: &Tool) -> Output {
    lab_command(tool).env("APT_CONFIG", tool.path("apt/apt.conf")).output().unwrap()
}

fn mirrored() -> (Tool, Mirror) {
    let tool = lab(&["make", "gcc", "gcc-12", "qemu-system-x86_64"]);
    let mirror = Mirror::serve(packages(&tool));
    configure(&tool, mirror.port);
    (tool, mirror)
}

/// H55: Whatever a mirror does, the lab says what it wanted and what it was told, and nothing bad is
/// kept: with a good mirror the next run works.
#[test]
#[ignore = "needs apt, dpkg-deb, tar and xz"]
fn a_broken_mirror_is_2_and_the_next_run_works() {
    for (mood, said) in [
        (Mood::Cut, "onnection"),
        (Mood::Other, "Hash Sum mismatch"),
        (Mood::Broken, "500"),
        (Mood::Gone, "404"),
    ] {
        let (tool, mirror) = mirrored();
        mirror.is(mood);
        let output = run(&tool);
        println!("{mood:?}: {}", err(&output));
        complains_of(
            &output,
            &["apt-get download", "failed (attempts:", "check the network", said],
        );
        tool.leaves_nothing_running();
        mirror.is(Mood::Good);
        ends_with(&run(&tool), 0);
    }
}

/// H55: Without a network the lab says so, and with a kernel in its cache it needs none.
#[test]
#[ignore = "needs apt, dpkg-deb, tar and xz"]
fn without_a_network_what_is_there_serves() {
    let (tool, mirror) = mirrored();
    // Nobody listens here: it was ours a moment ago.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    configure(&tool, closed);
    complains_of(&run(&tool), &["apt-get update", "failed (attempts:", "check the network"]);
    configure(&tool, mirror.port);
    ends_with(&run(&tool), 0);
    configure(&tool, closed);
    fs::remove_dir_all(tool.path("cache/apt")).unwrap();
    ends_with(&run(&tool), 0);
}

/// H50, H55: A lab killed while apt talks to a mirror leaves no apt behind.
#[test]
#[ignore = "needs apt, dpkg-deb, tar and xz"]
fn a_lab_killed_in_a_download_leaves_no_apt() {
    for mood in [Mood::Silent, Mood::Stalled] {
        let (tool, mirror) = mirrored();
        mirror.is(mood);
        let mut command = lab_command(&tool);
        let running = command.env("APT_CONFIG", tool.path("apt/apt.conf")).spawn().unwrap();
        mirror.wait_for_a_download();
        assert!(tool.processes().len() > 2, "{:?}", tool.processes());
        kill(running);
        tool.leaves_nothing_running();
        mirror.is(Mood::Good);
        ends_with(&run(&tool), 0);
    }
}
