//! Bochs 3.0, the emulator with VT-x, as Debian's trixie ships it.
//!
//! Debian 12's 2.7 lacks posted interrupts and 3.1 miscomputes 64-bit results; 3.0 is the one to use. Its libraries
//! come with it and are used with their own dynamic linker, so that the machine's own libraries do not matter.

use super::component::Component;
use super::debian::{self, Packages};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The cache folder with Bochs.
pub(crate) const fn component() -> Component {
    Component { name: "bochs-3.0", what: "fetching the emulator Bochs 3.0", recipe: "bochs recipe 1", make }
}

/// Where Bochs was unpacked.
pub(crate) struct Bochs {
    root: PathBuf,
}

impl Bochs {
    /// The Bochs that `setup` fetched.
    pub(crate) fn installed() -> Result<Self> {
        Ok(Bochs { root: component().folder()?.join("root") })
    }

    /// Program and arguments that start Bochs.
    pub(crate) fn command_line(&self) -> Vec<PathBuf> {
        let lib = self.libraries();
        vec![lib.join("ld-linux-x86-64.so.2"), "--library-path".into(), lib, self.root.join("usr/bin/bochs-bin")]
    }

    /// The folder with its firmware.
    pub(crate) fn share(&self) -> PathBuf {
        self.root.join("usr/share/bochs")
    }

    /// The environment it needs.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("BXSHARE", self.share()), ("LTDL_LIBRARY_PATH", self.libraries().join("bochs/plugins"))]
    }

    fn libraries(&self) -> PathBuf {
        self.root.join("usr/lib/x86_64-linux-gnu")
    }
}

fn make(dir: &Path) -> Result<Vec<String>> {
    let packages = Packages::open(dir)?;
    // Debian links Bochs with a desktop's libraries: take the shared libraries of that closure, but nothing that is
    // only data or wants to be configured.
    let names: Vec<String> = packages
        .closure(&["bochs", "bochs-term", "bochsbios", "vgabios"])?
        .into_iter()
        .filter(|name| ["lib", "bochs", "vgabios", "zlib1g", "gcc-"].iter().any(|start| name.starts_with(start)))
        .filter(|name| {
            !["libgtk-3-common", "libgtk-3-bin", "libpam", "libapparmor"].iter().any(|s| name.starts_with(s))
        })
        .collect();
    let debs = packages.download(&names)?;
    let root = dir.join("root");
    for deb in &debs {
        debian::unpack(deb, &root)?;
    }
    let origin = debian::origin(&debs);
    if !origin.iter().any(|name| name.starts_with("bochs_3.0")) {
        bail!("the mirror's Bochs is not version 3.0");
    }
    let bochs = Bochs { root };
    let line = bochs.command_line();
    let mut tool = crate::command::Tool::new(&line[0]).args(&line[1..]).args(["--help", "cpu"]);
    for (name, value) in bochs.environment() {
        tool = tool.env(name, value);
    }
    let models = tool.said()?;
    if !models.contains("corei7_") {
        bail!("Bochs starts but does not list its CPU models:\n{models}");
    }
    Ok(origin)
}
