//! One folder of the cache: made in a folder beside it and moved into place when complete, with a stamp.

use crate::console::Step;
use crate::places;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// How a folder of the cache is made.
pub(crate) struct Component {
    /// The folder's name in the cache.
    pub(crate) name: &'static str,
    /// What the person is told.
    pub(crate) what: &'static str,
    /// Changes whenever `make` does: a folder made by another recipe is made again.
    pub(crate) recipe: &'static str,
    /// Fills the folder and returns what it was made from, one line each.
    pub(crate) make: fn(&Path) -> Result<Vec<String>>,
}

const STAMP: &str = "made-from";

impl Component {
    /// The folder, whether it is there or not.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        Ok(places::cache()?.join(self.name))
    }

    /// Whether it is complete and made by this recipe.
    pub(crate) fn is_present(&self) -> bool {
        let stamp = self.folder().and_then(|dir| Ok(std::fs::read_to_string(dir.join(STAMP))?));
        stamp.is_ok_and(|text| text.lines().next() == Some(self.recipe))
    }

    /// Makes it if it is missing. A half-made folder of an earlier attempt is thrown away.
    pub(crate) fn provide(&self) -> Result<()> {
        // Another xtask may have made it while this one waited for the lock.
        if self.is_present() {
            return Ok(());
        }
        let step = Step::start(self.what);
        let folder = self.folder()?;
        let partial = places::cache()?.join(format!("{}.partial", self.name));
        places::fresh_folder(&partial)?;
        let origin = (self.make)(&partial).with_context(|| format!("{} did not work", self.what))?;
        let stamp = format!("{}\n{}\n", self.recipe, origin.join("\n"));
        places::write(&partial.join(STAMP), stamp)?;
        places::remove(&folder)?;
        std::fs::rename(&partial, &folder)
            .with_context(|| format!("cannot move {} to {}", partial.display(), folder.display()))?;
        step.done(&format!("{} from {} packages", folder.display(), origin.len()));
        Ok(())
    }
}
