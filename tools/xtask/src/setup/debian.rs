//! Packages of one Debian release, fetched and unpacked without root and whatever release the machine itself runs.
//!
//! apt does the work, with a configuration, state and cache of its own; it checks every file against the release's
//! signed index with the keys that the machine's Debian keyring package brought.

use crate::command::Tool;
use crate::places;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The release that Bochs 3.0 and the guests come from: one for all machines, so that all run the same bits.
const RELEASE: &str = "trixie";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt of our own, in a folder that goes away with it.
pub(crate) struct Packages {
    dir: PathBuf,
}

impl Packages {
    /// Fetches the release's index into a scratch folder beside `near`.
    pub(crate) fn open(near: &Path) -> Result<Self> {
        let dir = near.with_extension("apt");
        // What an interrupted attempt left behind goes first.
        places::remove(&dir)?;
        for sub in ["etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial", "debs"] {
            places::make_folder(&dir.join(sub))?;
        }
        let mirror = mirror()?;
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} is missing: install the package debian-archive-keyring, then start again");
        }
        let root = dir.display();
        places::write(&dir.join("state/status"), "")?;
        places::write(
            &dir.join("etc/sources.list"),
            format!("deb [signed-by={KEYRING} arch=amd64] {mirror} {RELEASE} main\n"),
        )?;
        places::write(
            &dir.join("apt.conf"),
            format!(
                "Dir::Etc \"{root}/etc\"; Dir::Etc::sourcelist \"{root}/etc/sources.list\"; Dir::Etc::sourceparts \"-\";\n\
                 Dir::Etc::parts \"{root}/etc/apt.conf.d\"; Dir::Etc::main \"-\";\n\
                 Dir::State \"{root}/state\"; Dir::State::status \"{root}/state/status\"; Dir::Cache \"{root}/cache\";\n\
                 APT::Architecture \"amd64\"; APT::Architectures {{ \"amd64\"; }}; Acquire::Languages \"none\";\n\
                 Acquire::Retries \"3\"; Debug::NoLocking \"true\"; APT::Sandbox::User \"\";\n"
            ),
        )?;
        let packages = Packages { dir };
        packages.apt("apt-get", &["-qq", "update"]).context("cannot read Debian's package index")?;
        Ok(packages)
    }

    /// The packages that installing `names` on an empty machine would bring, themselves included.
    pub(crate) fn closure(&self, names: &[&str]) -> Result<Vec<String>> {
        let mut args = vec!["-s", "--no-install-recommends", "install"];
        args.extend(names);
        let plan = self.apt("apt-get", &args)?;
        Ok(plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next().map(str::to_owned)).collect())
    }

    /// The package that a package with nothing in it stands for, such as linux-image-amd64.
    pub(crate) fn depends(&self, name: &str) -> Result<String> {
        let text = self.apt("apt-cache", &["depends", name])?;
        let first = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(first.with_context(|| format!("Debian's {name} depends on nothing"))?.to_owned())
    }

    /// Downloads packages and returns their files.
    pub(crate) fn download(&self, names: &[String]) -> Result<Vec<PathBuf>> {
        let debs = self.dir.join("debs");
        places::fresh_folder(&debs)?;
        Tool::new("apt-get")
            .args(["-qq", "download"])
            .args(names)
            .env("APT_CONFIG", self.dir.join("apt.conf"))
            .dir(&debs)
            .output()
            .context("cannot download Debian packages")?;
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&debs)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        files.sort();
        Ok(files)
    }

    fn apt(&self, program: &str, args: &[&str]) -> Result<String> {
        Tool::new(program).args(args).env("APT_CONFIG", self.dir.join("apt.conf")).output()
    }
}

impl Drop for Packages {
    fn drop(&mut self) {
        let _ = places::remove(&self.dir);
    }
}

/// Unpacks all files of a package.
pub(crate) fn unpack(deb: &Path, into: &Path) -> Result<()> {
    Tool::new("dpkg-deb").args(["-x".as_ref(), deb.as_os_str(), into.as_os_str()]).output().map(drop)
}

/// A package's file name without its folder: name, version and architecture.
pub(crate) fn origin(debs: &[PathBuf]) -> Vec<String> {
    debs.iter().filter_map(|deb| Some(deb.file_stem()?.to_string_lossy().replace("%3a", ":"))).collect()
}

/// The Debian mirror that this machine's own apt is configured with.
///
/// `update --print-uris` answers without root and before any list was fetched, unlike `indextargets`.
fn mirror() -> Result<String> {
    if places::program("apt-get").is_none() || places::program("dpkg-deb").is_none() {
        bail!("this needs a Debian machine: apt-get and dpkg-deb are not here");
    }
    let uris = Tool::new("apt-get").args(["update", "--print-uris"]).output()?;
    uris.lines()
        .filter_map(|line| line.strip_prefix('\'')?.split_once("/dists/").map(|(mirror, _)| mirror))
        .find(|mirror| mirror.ends_with("/debian"))
        .map(str::to_owned)
        .context("no Debian mirror in this machine's apt configuration (its address ends in /debian)")
}
