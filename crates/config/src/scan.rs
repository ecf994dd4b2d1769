//! Takes a text apart into TOML's smallest pieces (TOML 1.0.0, "Spec").

use heapless::String;

use crate::error::{ConfigError, ErrorKind};

/// A position in a text.
pub(crate) struct Scanner<'t> {
    rest: &'t str,
    line: u32,
    /// The key that is being read, for errors.
    key: &'t str,
}

impl<'t> Scanner<'t> {
    /// The start of `text`.
    pub(crate) fn new(text: &'t str) -> Self {
        // An editor may have put a byte-order mark before the text.
        Self { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1, key: "" }
    }

    /// The line of the position, from 1.
    pub(crate) fn line(&self) -> u32 {
        self.line
    }

    /// Names the key that errors are about from here on.
    pub(crate) fn about(&mut self, key: &'t str) {
        self.key = key;
    }

    /// An error at the position.
    pub(crate) fn error(&self, kind: ErrorKind) -> ConfigError {
        ConfigError::new(self.line, self.key, kind)
    }

    /// Whether nothing is left.
    pub(crate) fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next character, not taken.
    pub(crate) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Takes `token` if it is next.
    pub(crate) fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes the characters up to the first one that `ends` is true of.
    fn take_until(&mut self, ends: impl Fn(char) -> bool) -> &'t str {
        let (taken, rest) = before(self.rest, ends);
        self.rest = rest;
        taken
    }

    /// Takes `token`, or else says that `what` is expected.
    pub(crate) fn expect(&mut self, token: &str, what: &'static str) -> Result<(), ConfigError> {
        if self.take(token) { Ok(()) } else { Err(self.error(ErrorKind::Expected(what))) }
    }

    /// Skips blanks within the line.
    pub(crate) fn blanks(&mut self) {
        while self.take(" ") || self.take("\t") {}
    }

    /// Skips blanks, a comment, and takes the line's end, or the text's.
    pub(crate) fn end_of_line(&mut self) -> Result<(), ConfigError> {
        self.blanks();
        if self.rest.starts_with('#') {
            let (comment, rest) = before(self.rest, |character| character == '\n');
            // "Control characters other than tab ... are not permitted in comments."
            let comment = comment.strip_suffix('\r').unwrap_or(comment);
            if comment.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
                return Err(self.error(ErrorKind::Expected("a comment without control characters")));
            }
            self.rest = rest;
        }
        if self.take("\n") || self.take("\r\n") {
            self.line += 1;
            return Ok(());
        }
        if self.at_end() { Ok(()) } else { Err(self.error(ErrorKind::Expected("the end of the line"))) }
    }

    /// Skips blanks, comments and line ends, as inside an array.
    pub(crate) fn blanks_and_lines(&mut self) -> Result<(), ConfigError> {
        loop {
            self.blanks();
            match self.peek() {
                Some('#' | '\n' | '\r') => self.end_of_line()?,
                _ => return Ok(()),
            }
        }
    }

    /// A bare key.
    pub(crate) fn bare_key(&mut self) -> Result<&'t str, ConfigError> {
        let is_key = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
        let key = self.take_until(|character| !is_key(character));
        if key.is_empty() { Err(self.error(ErrorKind::Expected("a key"))) } else { Ok(key) }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self) -> Result<bool, ConfigError> {
        let value = self.take("true");
        if value || self.take("false") { Ok(value) } else { Err(self.error(ErrorKind::Expected("true or false"))) }
    }

    /// A decimal number from `min` to `max`, underscores between digits allowed.
    pub(crate) fn integer(&mut self, min: u32, max: u32) -> Result<u32, ConfigError> {
        const WHAT: ErrorKind = ErrorKind::Expected("a whole decimal number");
        let (digits, rest) = before(self.rest, |character| !matches!(character, '0'..='9' | '_'));
        let leading_zero = digits.len() > 1 && digits.starts_with('0');
        if leading_zero || digits.as_bytes().split(|byte| *byte == b'_').any(<[u8]>::is_empty) {
            return Err(self.error(WHAT));
        }
        // A fraction, exponent or prefix belongs to a number of another kind.
        let goes_on = |character: char| {
            !character.is_ascii() || character.is_ascii_alphanumeric() || matches!(character, '.' | '+' | '-')
        };
        if rest.starts_with(goes_on) {
            return Err(self.error(WHAT));
        }
        let value = digits
            .bytes()
            .filter(|digit| *digit != b'_')
            .try_fold(0u32, |value, digit| value.checked_mul(10)?.checked_add(u32::from(digit - b'0')));
        match value {
            Some(value) if (min..=max).contains(&value) => {
                self.rest = rest;
                Ok(value)
            }
            _ => Err(self.error(ErrorKind::OutOfRange { min, max })),
        }
    }

    /// A basic string of at most `N` bytes, in its quotes, escapes resolved.
    pub(crate) fn string<const N: usize>(&mut self) -> Result<String<N>, ConfigError> {
        self.expect("\"", "a string in double quotes")?;
        let mut string = String::new();
        while let Some(character) = self.string_character()? {
            string.push(character).map_err(|_| self.error(ErrorKind::TooLong { limit: N }))?;
        }
        Ok(string)
    }

    /// The next character that a string means; `None` at its closing quote. Takes it.
    fn string_character(&mut self) -> Result<Option<char>, ConfigError> {
        let mut characters = self.rest.chars();
        let meant = match characters.next() {
            None | Some('\n' | '\r') => return Err(self.error(ErrorKind::Expected("the string's closing quote"))),
            Some('\\') => self.escape()?,
            Some(character) => {
                self.rest = characters.as_str();
                match character {
                    '"' => return Ok(None),
                    '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}' => return Err(self.error(ErrorKind::BadCharacter)),
                    _ => character,
                }
            }
        };
        if meant == '\0' { Err(self.error(ErrorKind::BadCharacter)) } else { Ok(Some(meant)) }
    }

    /// An escape sequence, its backslash next.
    fn escape(&mut self) -> Result<char, ConfigError> {
        let bad = self.error(ErrorKind::BadEscape);
        let mut characters = self.rest.chars();
        characters.next();
        let meant = match characters.next() {
            Some('b') => '\u{8}',
            Some('t') => '\t',
            Some('n') => '\n',
            Some('f') => '\u{c}',
            Some('r') => '\r',
            Some('"') => '"',
            Some('\\') => '\\',
            Some(letter @ ('u' | 'U')) => {
                let mut code = 0;
                for _ in 0..if letter == 'u' { 4 } else { 8 } {
                    let Some(digit) = characters.next().and_then(|digit| digit.to_digit(16)) else { return Err(bad) };
                    code = code << 4 | digit;
                }
                let Some(meant) = char::from_u32(code) else { return Err(bad) };
                meant
            }
            _ => return Err(bad),
        };
        self.rest = characters.as_str();
        Ok(meant)
    }
}

/// `text` before and from the first character that `ends` is true of.
fn before(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.find(ends).and_then(|end| text.split_at_checked(end)).unwrap_or((text, ""))
}
