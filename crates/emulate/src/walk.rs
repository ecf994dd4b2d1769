//! A guest's linear address to its guest-physical address, as the guest's own page tables say.
//!
//! SDM 3A, chapter 4 "Paging". Protection keys are not judged: an access that exits was allowed by them before it
//! exited, and nothing else here can tell what PKRU holds.

use arch::control::{Cr0, Cr4, Efer};
use arch::{Fault, GuestMemory, GuestPhys, Linear, OutsideMemory};

use crate::page_entry::{Entry, Format, PRESENT, WRITABLE};

/// What decides how linear addresses are translated, read from one vCPU.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    /// CR0 as the guest runs with it (not the read shadow).
    pub cr0: Cr0,
    /// CR3.
    pub cr3: u64,
    /// CR4 as the guest runs with it.
    pub cr4: Cr4,
    /// IA32_EFER.
    pub efer: Efer,
    /// The page-directory-pointer-table entries that PAE paging uses: with EPT they are in the VMCS. `None`: they are
    /// read from memory at CR3 for each translation.
    pub pdptes: Option<[u64; 4]>,
    /// Current privilege level, 0 to 3: the DPL of SS.
    pub cpl: u8,
    /// RFLAGS.AC.
    pub ac: bool,
    /// Physical-address width in bits, 32 to 52: what the guest's CPUID.80000008H:EAX[7:0] says.
    pub physical_width: u8,
    /// 1-GiB pages: what the guest's CPUID.80000001H:EDX[26] says.
    pub gigabyte_pages: bool,
}

/// Why memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessKind {
    /// A write, or a read that a write of the same operand follows.
    pub write: bool,
    /// An instruction fetch.
    pub fetch: bool,
    /// An implicit access to a system data structure: a supervisor-mode access at any CPL (SDM 3A, 4.6.1 "Determination
    /// of Access Rights"). RFLAGS.AC does not let it through SMAP.
    pub implicit: bool,
}

impl AccessKind {
    /// A read of data by the instruction itself.
    pub const READ: Self = Self { write: false, fetch: false, implicit: false };
    /// A write of data by the instruction itself.
    pub const WRITE: Self = Self { write: true, ..Self::READ };
    /// The fetch of an instruction.
    pub const FETCH: Self = Self { fetch: true, ..Self::READ };
}

/// A translated address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Where the linear address leads.
    pub address: GuestPhys,
    /// Size of the page in bytes: 4 KiB, 2 MiB, 4 MiB or 1 GiB. 4 KiB without paging.
    pub page_bytes: u64,
}

/// The error code of a page fault (SDM 3A, 4.7 "Page-Fault Exceptions").
mod error {
    pub(super) const PRESENT: u32 = 1 << 0;
    pub(super) const WRITE: u32 = 1 << 1;
    pub(super) const USER: u32 = 1 << 2;
    pub(super) const RESERVED: u32 = 1 << 3;
    pub(super) const FETCH: u32 = 1 << 4;
}

/// How often a walk begins anew because another vCPU changed an entry under it. A guest that goes on for longer gets a
/// page fault for a page that is not present, which its handler finds to be spurious.
const ATTEMPTS: usize = 16;

/// Translates `linear` for an access of `kind`, and sets accessed and dirty flags as the processor does.
///
/// Outside 64-bit mode bits 63:32 of `linear` are ignored; in 64-bit mode the caller has checked that it is canonical.
/// Where a paging structure is not in RAM, its entries read as all ones.
///
/// # Errors
/// [`Fault::Pf`] with the error code and the address for CR2; flags have then not been touched.
pub fn translate(
    memory: &dyn GuestMemory,
    paging: &Paging,
    linear: Linear,
    kind: AccessKind,
) -> Result<Translation, Fault> {
    if !paging.cr0.contains(Cr0::PG) {
        return Ok(Translation { address: GuestPhys(linear.get() & 0xffff_ffff), page_bytes: 4096 });
    }
    let format = Format::of(paging);
    let linear = if format.is_long() { linear.get() } else { linear.get() & 0xffff_ffff };
    for _ in 0..ATTEMPTS {
        let walk = match walk(memory, paging, format, linear) {
            Ok(walk) => walk,
            Err(reason) => return Err(page_fault(paging, linear, kind, reason)),
        };
        if !walk.allows(paging, kind) {
            return Err(page_fault(paging, linear, kind, error::PRESENT));
        }
        if walk.set_flags(memory, kind.write) {
            return Ok(walk.translation);
        }
    }
    Err(page_fault(paging, linear, kind, 0))
}

/// The fault for an access of `kind`; `reason` is the error code's P and RSVD.
#[cold]
fn page_fault(paging: &Paging, linear: u64, kind: AccessKind, reason: u32) -> Fault {
    let mut error = reason;
    if kind.write {
        error |= error::WRITE;
    }
    if is_user(paging, kind) {
        error |= error::USER;
    }
    let fetches_count =
        paging.cr4.contains(Cr4::SMEP) || paging.cr4.contains(Cr4::PAE) && paging.efer.contains(Efer::NXE);
    if kind.fetch && fetches_count {
        error |= error::FETCH;
    }
    Fault::Pf { address: linear, error }
}

fn is_user(paging: &Paging, kind: AccessKind) -> bool {
    paging.cpl == 3 && !kind.implicit
}

/// The entries that a walk used, from the top, and what they say together.
struct Walk {
    used: [(GuestPhys, Entry); 5],
    count: usize,
    format: Format,
    user: bool,
    writable: bool,
    executable: bool,
    translation: Translation,
}

/// Finds the page of `linear`, whoever may use it. The error is the P and RSVD bits of the error code.
#[inline]
fn walk(memory: &dyn GuestMemory, paging: &Paging, format: Format, linear: u64) -> Result<Walk, u32> {
    let mut walk = Walk {
        used: [(GuestPhys(0), Entry(0)); 5],
        count: 0,
        format,
        user: true,
        writable: true,
        executable: true,
        translation: Translation { address: GuestPhys(0), page_bytes: 0 },
    };
    let mut level = format.levels();
    let mut table = format.root(paging.cr3);
    if format == Format::Pae {
        table = page_directory(memory, paging, linear)?;
        level -= 1;
    }
    loop {
        let at = format.entry_at(table, linear, level);
        let entry = read(memory, format, at);
        if entry.0 & PRESENT == 0 {
            return Err(0);
        }
        let is_page = format.is_page(entry, level, paging);
        if entry.0 & format.reserved(level, is_page, paging) != 0 {
            return Err(error::PRESENT | error::RESERVED);
        }
        walk.user &= entry.is_user();
        walk.writable &= entry.0 & WRITABLE != 0;
        walk.executable &= !format.is_execute_disabled(entry);
        walk.used[walk.count] = (at, entry);
        walk.count += 1;
        if is_page {
            let page_bytes = format.page_bytes(level);
            let address = format.page_address(entry, level) | linear & (page_bytes - 1);
            walk.translation = Translation { address: GuestPhys(address), page_bytes };
            return Ok(walk);
        }
        table = format.table_address(entry);
        level -= 1;
    }
}

/// The page directory that PAE paging uses for `linear`. The four entries above it were loaded, and their reserved bits
/// checked, when CR3 was loaded; they restrict nothing and have no accessed flag (SDM 3A, 4.4.1 "PDPTE Registers").
fn page_directory(memory: &dyn GuestMemory, paging: &Paging, linear: u64) -> Result<GuestPhys, u32> {
    let index = linear >> 30 & 3;
    let entry = match paging.pdptes {
        Some(pdptes) => pdptes[index as usize & 3],
        None => read(memory, Format::Pae, Format::Pae.root(paging.cr3).add(8 * index)).0,
    };
    if entry & PRESENT == 0 { Err(0) } else { Ok(Format::Pae.table_address(Entry(entry))) }
}

#[inline]
fn read(memory: &dyn GuestMemory, format: Format, at: GuestPhys) -> Entry {
    if format == Format::Bits32 {
        memory.read_u32(at).map_or(Entry(0xffff_ffff), |entry| Entry(entry.into()))
    } else {
        memory.read_u64(at).map_or(Entry(u64::MAX), Entry)
    }
}

impl Walk {
    /// SDM 3A, 4.6.1 "Determination of Access Rights".
    fn allows(&self, paging: &Paging, kind: AccessKind) -> bool {
        if kind.fetch {
            let by_mode =
                if is_user(paging, kind) { self.user } else { !(self.user && paging.cr4.contains(Cr4::SMEP)) };
            return by_mode && (self.executable || !paging.efer.contains(Efer::NXE));
        }
        if is_user(paging, kind) {
            return self.user && (self.writable || !kind.write);
        }
        let smap_stops = self.user && paging.cr4.contains(Cr4::SMAP) && (kind.implicit || !paging.ac);
        !smap_stops && (!kind.write || self.writable || !paging.cr0.contains(Cr0::WP))
    }

    /// Sets the accessed flag in every entry used, and the dirty flag in the last one for a write. `false` when another
    /// vCPU has changed one of them meanwhile, so that the walk is out of date.
    #[inline]
    fn set_flags(&self, memory: &dyn GuestMemory, write: bool) -> bool {
        let last = self.count - 1;
        self.used[..self.count].iter().enumerate().all(|(n, &(at, entry))| {
            let flagged = entry.with_flags(write && n == last);
            flagged == entry || replace(memory, self.format, at, entry, flagged).unwrap_or(true)
        })
    }
}

/// Replaces one entry if it is still what was read.
#[cold]
fn replace(
    memory: &dyn GuestMemory,
    format: Format,
    at: GuestPhys,
    old: Entry,
    new: Entry,
) -> Result<bool, OutsideMemory> {
    if format != Format::Bits32 {
        return memory.compare_exchange(at, old.0, new.0);
    }
    // A 32-bit entry is one half of the word that can be exchanged.
    let word_at = GuestPhys(at.get() & !7);
    let shift = 8 * (at.get() & 4);
    let word = memory.read_u64(word_at)?;
    if word >> shift & 0xffff_ffff != old.0 {
        return Ok(false);
    }
    memory.compare_exchange(word_at, word, word ^ (old.0 ^ new.0) << shift)
}
