//! The words of a zone file's line
//! ([RFC 1035, section 5.1](https://www.rfc-editor.org/rfc/rfc1035#section-5.1)).

use crate::name::escape;

/// One word, its escapes still in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// What was written, without the quotes.
    pub(crate) raw: String,
    /// Whether it stood in quotes.
    pub(crate) quoted: bool,
}

impl Token {
    /// The octets it means.
    ///
    /// # Errors
    /// A broken escape.
    pub(super) fn octets(&self) -> Result<Vec<u8>, String> {
        let mut octets = Vec::with_capacity(self.raw.len());
        let mut chars = self.raw.chars();
        while let Some(c) = chars.next() {
            if c == '\\' {
                octets.push(escape(&mut chars).ok_or_else(|| format!("a broken escape in {:?}", self.raw))?);
            } else {
                octets.extend(c.encode_utf8(&mut [0; 4]).bytes());
            }
        }
        Ok(octets)
    }
}

/// Splits text into words. Parentheses and line ends separate, `;` begins a comment.
///
/// # Errors
/// A quote that is not closed.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => out.push(quoted(&mut chars)?),
            ';' => while chars.next_if(|&c| c != '\n').is_some() {},
            '(' | ')' => {}
            c if c.is_whitespace() => {}
            c => {
                let mut raw = String::from(c);
                let mut escaped = c == '\\';
                while let Some(c) = chars.next_if(|&c| escaped || !(c.is_whitespace() || "\";()".contains(c)))
                {
                    escaped = c == '\\' && !escaped;
                    raw.push(c);
                }
                out.push(Token { raw, quoted: false });
            }
        }
    }
    Ok(out)
}

fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, String> {
    let mut raw = String::new();
    let mut escaped = false;
    for c in chars {
        if c == '"' && !escaped {
            return Ok(Token { raw, quoted: true });
        }
        escaped = c == '\\' && !escaped;
        raw.push(c);
    }
    Err("a quote is not closed".to_owned())
}
