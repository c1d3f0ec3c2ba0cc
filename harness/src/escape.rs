//! Text that comes from elsewhere (names of tensors, what a driver said, rows that were downloaded), at each border that it crosses.
//! Behind a border it is text: no markup, no formula, no order to a terminal, no path. One function for each border.

use std::borrow::Cow;
use std::fmt::Write;

use sha2::Digest;

/// On a terminal: lines and tabs, and nothing that moves the cursor, changes colours, or turns the direction of writing.
pub fn terminal(text: &str) -> Cow<'_, str> {
    let is_shown = |c: char| matches!(c, '\n' | '\t') || lab::visible(c) == c;
    match text.chars().all(is_shown) {
        true => Cow::Borrowed(text),
        false => {
            let shown = text.chars();
            Cow::Owned(
                shown
                    .map(|c| if is_shown(c) { c } else { lab::visible(c) })
                    .collect(),
            )
        }
    }
}

/// Within a line of Markdown, as GitHub reads it: what would be markup, a link, a mention or a formula is shown as it is. What
/// GitHub would make of an address or a mention it makes of escaped signs, too, and of code alone it makes nothing.
pub fn markdown(text: &str) -> String {
    const MARKUP: &str = "\\`*_[]<>|&~$@#";
    let text = text.trim_start();
    if is_address_or_mention(text) {
        return format!("`` {} ``", markdown_code(text.trim_end()));
    }
    let mut out = String::with_capacity(text.len());
    // `1. a`
    let (number, behind) =
        text.split_at(text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len());
    let is_numbered = !number.is_empty() && behind.starts_with(['.', ')']);
    let rest = match is_numbered && is_item(behind) {
        true => {
            out += number;
            behind
        }
        false => text,
    };
    if is_item(rest) && (is_numbered || rest.starts_with(['-', '+'])) || is_rule(rest) {
        out.push('\\');
    }
    let mut rest = rest.chars().peekable();
    while let Some(c) = rest.next() {
        let is_link = c == ':' && rest.peek() == Some(&'/') || c == '.' && out.ends_with("www");
        if MARKUP.contains(c) || is_link {
            out.push('\\');
        }
        out.push(if c.is_whitespace() {
            ' '
        } else {
            lab::visible(c)
        });
    }
    out
}

/// Whether there is `mail@example.org`, `@somebody` or `#1` in it.
fn is_address_or_mention(text: &str) -> bool {
    let pairs = text.chars().zip(text.chars().skip(1));
    let mut pairs = pairs.filter(|(sign, _)| matches!(sign, '@' | '#'));
    pairs.any(|(_, behind)| behind.is_alphanumeric() || matches!(behind, '-' | '_' | '.'))
}

/// Whether a mark, and nothing or a space behind it, are at a line's beginning: `- a`.
fn is_item(text: &str) -> bool {
    let mut marks = text.chars();
    marks.next().is_some() && marks.next().is_none_or(char::is_whitespace)
}

/// `---` and `===`.
fn is_rule(text: &str) -> bool {
    let text = text.trim_end();
    !text.is_empty() && text.chars().all(|c| matches!(c, '-' | '=' | ' '))
}

/// Between backticks, in Markdown.
pub fn markdown_code(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '`' | '|' => '\'',
            c => lab::visible(c),
        })
        .collect()
}

/// A path, as the target of a link in Markdown.
pub fn markdown_link(path: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    match path.chars().all(is_plain) {
        true => path.to_owned(),
        false => {
            let inside = path.chars().flat_map(|c| match c {
                '<' | '>' | '\\' => vec!['\\', c],
                c => vec![lab::visible(c)],
            });
            format!("<{}>", inside.collect::<String>())
        }
    }
}

/// A block of code in Markdown, which its text cannot leave.
pub fn markdown_block(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}\n", terminal(text.trim()))
}

/// In HTML and SVG, between tags and in attributes.
pub fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(lab::visible(c)),
        }
    }
    out
}

/// A field of CSV: what a spreadsheet would compute (`=`, `+`, `-`, `@` at its beginning) begins with an apostrophe, which says there
/// that it is text. [`from_csv`] takes it away again.
pub fn csv(text: &str) -> String {
    let text: String = text.chars().map(lab::visible).collect();
    match text.starts_with(['=', '+', '-', '@', '\'']) {
        true => format!("'{text}"),
        false => text,
    }
}

/// What was written by [`csv()`].
pub fn from_csv(field: &str) -> &str {
    field.strip_prefix('\'').unwrap_or(field)
}

/// A part of a file's name. What is no letter, digit, `.`, `_` or `-`, and what is long, is replaced, and a digest tells it apart.
pub fn file_name(text: &str) -> String {
    const LONGEST: usize = 80;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_short = text.len() <= LONGEST;
    if is_short && !text.is_empty() && !text.starts_with('.') && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let plain = text.chars().take(LONGEST);
    let plain: String = plain.map(|c| if is_plain(c) { c } else { '_' }).collect();
    let digest = sha2::Sha256::digest(text.as_bytes());
    let mut name = plain.trim_start_matches('.').to_owned();
    for byte in &digest[..4] {
        write!(name, "{byte:02x}").expect("a string grows");
    }
    name
}

#[cfg(test)]
mod tests {
    use pulldown_cmark::{Event, Options, Parser, Tag};

    use super::*;

    const PAYLOADS: [&str; 29] = [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "![x](https://evil.example/t.png)",
        "https://evil.example",
        "www.evil.example",
        "`code` **bold** _soft_ ~~gone~~",
        "a | b\n| c |",
        "```\n# out",
        "&lt;b&gt; &#60;b&#62;",
        "=HYPERLINK(\"https://evil.example\")",
        "+1+cmd|' /C calc'!A0",
        "@SUM(1)",
        "-2+3",
        "'=1",
        "\u{1b}[31mred\u{1b}]0;title\u{7}",
        "a\rb\u{8}\u{8}c\u{9b}2J",
        "\u{202e}gpj.exe",
        "\"/><svg onload=alert(1)>",
        "../../etc/passwd\0",
        "- item",
        "1. item",
        "12) item",
        "---",
        "    code",
        "# title #1 @somebody $x$",
        "write to mail@evil.example `now` | or never",
        "mailto:mail@evil.example",
        "xmpp:mail@evil.example/x",
    ];

    #[test]
    fn nothing_in_markdown_is_more_than_text() {
        for payload in PAYLOADS {
            let line = markdown(payload);
            for around in [
                line.clone(),
                format!("a {line} b"),
                format!("| a |\n| --- |\n| {line} |\n"),
            ] {
                for event in Parser::new_ext(&around, Options::all()) {
                    let is_text = match &event {
                        Event::Text(text) => !is_address_or_mention(text),
                        Event::Code(_) | Event::SoftBreak => true,
                        Event::Start(tag) => matches!(
                            tag,
                            Tag::Paragraph
                                | Tag::Table(_)
                                | Tag::TableHead
                                | Tag::TableRow
                                | Tag::TableCell
                        ),
                        Event::End(_) => true,
                        _ => false,
                    };
                    assert!(is_text, "{payload:?} becomes {event:?}");
                }
            }
            let block = markdown_block("toml", payload);
            let mut starts = Parser::new(&block).filter(|event| matches!(event, Event::Start(_)));
            assert!(matches!(
                starts.next(),
                Some(Event::Start(Tag::CodeBlock(_)))
            ));
            assert!(starts.next().is_none(), "{payload:?}");
        }
        assert_eq!(markdown("1.00× · 3 GiB (naive)"), "1.00× · 3 GiB (naive)");
        assert_eq!(markdown("mail@x.org `"), "`` mail@x.org ' ``");
    }

    #[test]
    fn no_tag_and_no_end_of_an_attribute_is_left_in_html() {
        for payload in PAYLOADS {
            let text = html(payload);
            assert!(
                !text.contains(['<', '>', '"', '\'', '\0', '\u{1b}']),
                "{text}"
            );
        }
    }

    #[test]
    fn a_spreadsheet_computes_nothing_and_every_field_is_read_as_it_was_written() {
        for payload in PAYLOADS {
            let field = csv(payload);
            assert!(
                !field.starts_with(['=', '+', '-', '@', '\t', '\r']),
                "{field}"
            );
            let shown: String = payload.chars().map(lab::visible).collect();
            assert_eq!(from_csv(&field), shown);
        }
    }

    #[test]
    fn a_terminal_is_told_nothing() {
        for payload in PAYLOADS {
            let text = terminal(payload);
            let acts = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            assert!(!text.chars().any(acts), "{text:?}");
        }
        assert_eq!(terminal("two\n\tlines"), "two\n\tlines");
    }

    #[test]
    fn a_name_of_a_file_stays_in_its_folder_and_apart_from_others() {
        for payload in PAYLOADS {
            let name = file_name(payload);
            assert!(name.len() < 100 && !name.starts_with('.'), "{name}");
            assert!(!name.contains(['/', '\\', '\0', ':']), "{name}");
        }
        assert_eq!(file_name("v257-c64-e48-l2-h4"), "v257-c64-e48-l2-h4");
        assert_ne!(file_name("a/b"), file_name("a:b"));
        assert_ne!(file_name(""), "");
    }
}
