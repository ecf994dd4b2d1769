//! Unpacks what is carried in little room: RFC 1951 "DEFLATE Compressed Data Format Specification".
//!
//! It takes one bit at a time, which is slow and little code: a library's tables and fast paths would weigh half of what
//! packing the demo guest saves.

/// Unpacks the DEFLATE stream `packed` into `into`; tells how many bytes it was. `None`: it is no such stream, or there is
/// too little room.
pub fn inflate(packed: &[u8], into: &mut [u8]) -> Option<usize> {
    let mut bits = Bits { bytes: packed, at: 0 };
    let mut output = Output { bytes: into, at: 0 };
    loop {
        let is_last = bits.take(1)? != 0;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut output)?,
            1 => {
                let (literals, distances) = fixed_codes();
                compressed(&mut bits, &mut output, &literals, &distances)?;
            }
            2 => {
                let (literals, distances) = dynamic_codes(&mut bits)?;
                compressed(&mut bits, &mut output, &literals, &distances)?;
            }
            _ => return None,
        }
        if is_last {
            return Some(output.at);
        }
    }
}

/// The stream, bit by bit from the least significant one of each byte (3.1.1).
struct Bits<'a> {
    bytes: &'a [u8],
    /// How many have been taken.
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<usize> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (self.at % 8) & 1;
        self.at += 1;
        Some(bit.into())
    }

    /// A number of `count` bits, its least significant one first.
    fn take(&mut self, count: usize) -> Option<usize> {
        (0..count).try_fold(0, |value, n| Some(value | self.bit()? << n))
    }
}

/// What was unpacked so far.
struct Output<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Output<'_> {
    fn put(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(self.at)? = byte;
        self.at += 1;
        Some(())
    }

    /// Repeats `length` bytes from `distance` bytes ago on; they may include what this puts.
    fn repeat(&mut self, length: usize, distance: usize) -> Option<()> {
        for _ in 0..length {
            self.put(*self.bytes.get(self.at.checked_sub(distance)?)?)?;
        }
        Some(())
    }
}

/// Longest code of a symbol in bits, plus one.
const LENGTHS: usize = 16;
/// Most symbols of a code: literals and lengths.
const SYMBOLS: usize = 288;
/// Most distances.
const DISTANCES: usize = 32;

/// A Huffman code, which the lengths of its symbols' codes define (3.2.2).
struct Code {
    /// How many symbols have a code of each length.
    counts: [usize; LENGTHS],
    /// The symbols, by length and then by number.
    symbols: [u16; SYMBOLS],
}

impl Code {
    /// The code of the symbols 0, 1, 2, ... that are `lengths` bits long each, at most 15; 0 for none.
    fn new(lengths: &[u8]) -> Self {
        let mut code = Self { counts: [0; LENGTHS], symbols: [0; SYMBOLS] };
        let mut places = code.symbols.iter_mut();
        for length in 1..LENGTHS {
            for (symbol, _) in (0..).zip(lengths).filter(|&(_, &own)| usize::from(own) == length) {
                code.counts[length] += 1;
                if let Some(place) = places.next() {
                    *place = symbol;
                }
            }
        }
        code
    }

    /// The next symbol. Codes of one length are consecutive numbers, beginning where the shorter ones left off.
    fn next(&self, bits: &mut Bits<'_>) -> Option<usize> {
        let (mut code, mut first, mut before) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.bit()?;
            if code < first + count {
                return self.symbols.get(before + code - first).map(|&symbol| symbol.into());
            }
            before += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

/// 3.2.4 "Non-compressed blocks".
fn stored(bits: &mut Bits<'_>, output: &mut Output<'_>) -> Option<()> {
    bits.at = bits.at.next_multiple_of(8);
    let length = bits.take(16)?;
    if bits.take(16)? != length ^ 0xffff {
        return None;
    }
    for _ in 0..length {
        let [byte, ..] = bits.take(8)?.to_le_bytes();
        output.put(byte)?;
    }
    Some(())
}

/// 3.2.5 "Compressed blocks".
fn compressed(bits: &mut Bits<'_>, output: &mut Output<'_>, literals: &Code, distances: &Code) -> Option<()> {
    const END: usize = 256;
    loop {
        let symbol = literals.next(bits)?;
        if let Ok(literal) = u8::try_from(symbol) {
            output.put(literal)?;
            continue;
        }
        if symbol == END {
            return Some(());
        }
        let length = match symbol - END - 1 {
            short @ 0..8 => 3 + short,
            number @ 8..28 => {
                let extra = number / 4 - 1;
                3 + ((4 + number % 4) << extra) + bits.take(extra)?
            }
            28 => 258,
            _ => return None,
        };
        let distance = match distances.next(bits)? {
            near @ 0..2 => 1 + near,
            number @ 2..30 => {
                let extra = number / 2 - 1;
                1 + ((2 + number % 2) << extra) + bits.take(extra)?
            }
            _ => return None,
        };
        output.repeat(length, distance)?;
    }
}

/// 3.2.6 "Compression with fixed Huffman codes".
fn fixed_codes() -> (Code, Code) {
    let mut lengths = [8; SYMBOLS];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    (Code::new(&lengths), Code::new(&[5; DISTANCES]))
}

/// 3.2.7 "Compression with dynamic Huffman codes".
fn dynamic_codes(bits: &mut Bits<'_>) -> Option<(Code, Code)> {
    const ORDER: [u8; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (literals, distances, given) = (257 + bits.take(5)?, 1 + bits.take(5)?, 4 + bits.take(4)?);
    let mut of_lengths = [0; ORDER.len()];
    for &length in &ORDER[..given] {
        let [bits, ..] = bits.take(3)?.to_le_bytes();
        of_lengths[usize::from(length)] = bits;
    }
    let of_lengths = Code::new(&of_lengths);

    let mut lengths = [0; SYMBOLS + DISTANCES];
    let lengths = &mut lengths[..literals + distances];
    let mut at = 0;
    while at < lengths.len() {
        let (length, times) = match of_lengths.next(bits)? {
            16 => (*lengths.get(at.checked_sub(1)?)?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (u8::try_from(length).ok()?, 1),
        };
        lengths.get_mut(at..at + times)?.fill(length);
        at += times;
    }
    let (literals, distances) = lengths.split_at(literals);
    Some((Code::new(literals), Code::new(distances)))
}

#[cfg(test)]
mod tests {
    use super::inflate;
    use miniz_oxide::deflate::compress_to_vec;
    use proptest::prelude::*;

    /// `packed` unpacks to `bytes`, and not from less of it, nor into less room.
    fn unpacks(packed: &[u8], bytes: &[u8]) {
        let mut room = vec![0; bytes.len()];
        assert_eq!(inflate(packed, &mut room), Some(bytes.len()));
        assert_eq!(room, bytes);
        assert_eq!(inflate(&packed[..packed.len() - 1], &mut room), None);
        if let Some(less) = bytes.len().checked_sub(1) {
            assert_eq!(inflate(packed, &mut room[..less]), None);
        }
    }

    /// One stream of each kind of block, by hand. RFC 1951, 3.2.3 "Details of block format".
    #[test]
    fn each_kind_of_block_is_read() {
        // Last, stored, length 2.
        unpacks(&[0b001, 2, 0, !2, !0, b'h', b'i'], b"hi");
        // Last, fixed codes: 'a' is 0x30 + 0x61 in eight bits, length 4 (258) is 0000010, distance 1 is 00000, end is 0000000.
        unpacks(&[0b0100_1011, 0b0000_0100, 0b0000_0001, 0], b"aaaaa");
        // No such kind.
        assert_eq!(inflate(&[0b111, 0], &mut [0; 4]), None);
        // A repetition from before the beginning.
        assert_eq!(inflate(&[0b0000_0011, 0b0000_0001, 0, 0], &mut [0; 300]), None);
    }

    proptest! {
        /// What a packer of others packs comes back.
        #[test]
        fn what_was_packed_comes_back(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), 1..60_usize), 0..40),
            level in 0..=10_u8,
        ) {
            let bytes: Vec<u8> = pieces.into_iter().flat_map(|(piece, times)| piece.repeat(times)).collect();
            unpacks(&compress_to_vec(&bytes, level), &bytes);
        }

        /// No stream makes it panic, and it makes of none what another unpacker does not.
        #[test]
        fn nonsense_is_refused(packed in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut room = [0; 4096];
            let own = inflate(&packed, &mut room).map(|length| room[..length].to_vec());
            if let Ok(other) = miniz_oxide::inflate::decompress_to_vec_with_limit(&packed, room.len()) {
                prop_assert_eq!(own, Some(other));
            }
        }
    }
}
