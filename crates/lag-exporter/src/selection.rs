//! Which groups and topics are exported: names in which `*` stands for any characters; `!` before one leaves them out.

/// What reads like a regular expression would match nothing, without a word.
const NOT_OURS: [char; 12] = ['[', ']', '(', ')', '{', '}', '^', '$', '|', '?', '+', '\\'];

/// One entry of `--groups` or `--topics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    is_denied: bool,
    text: String,
}

impl Pattern {
    /// The name, where the pattern allows exactly one.
    pub(crate) fn exact(&self) -> Option<&str> {
        (!self.is_denied && !self.text.contains('*')).then_some(&self.text)
    }

    fn matches(&self, name: &str) -> bool {
        let mut parts = self.text.split('*');
        // `split` gives at least one part: what the name must begin with.
        let Some(mut rest) = parts.next().and_then(|start| name.strip_prefix(start)) else { return false };
        let Some(end) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(end)
    }
}

/// Whether a name is chosen: it matches a pattern without `!`, or there is none such, and none with `!`.
pub(crate) fn chooses(patterns: &[Pattern], name: &str) -> bool {
    let allowed = patterns.iter().any(|one| !one.is_denied && one.matches(name));
    let is_open = patterns.iter().all(|one| one.is_denied);
    (allowed || is_open) && !patterns.iter().any(|one| one.is_denied && one.matches(name))
}

/// Parser of one entry of `--groups` and `--topics`.
///
/// # Errors
/// What to write instead.
pub(crate) fn pattern(text: &str) -> Result<Pattern, String> {
    let given = text.trim();
    let (is_denied, name) = given.strip_prefix('!').map_or((false, given), |name| (true, name));
    if name.is_empty() {
        return Err("give names, separated by commas; * stands for any characters, ! leaves out".to_owned());
    }
    if is_denied && name.chars().all(|character| character == '*') {
        return Err("leaves nothing; give names to leave out, such as !console-*".to_owned());
    }
    if let Some(found) = name.chars().find(|character| NOT_OURS.contains(character) || character.is_control()) {
        return Err(format!("{} has no meaning here: only * is special, for any characters", found.escape_debug()));
    }
    Ok(Pattern { is_denied, text: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{chooses, pattern};

    #[test]
    fn a_star_stands_for_any_characters() {
        let cases = [
            ("*", "anything", true),
            ("*", "", true),
            ("redis", "redis", true),
            ("redis", "redis-2", false),
            ("redis*", "redis-2", true),
            ("redis*", "redis", true),
            ("*redis", "driver-redis", true),
            ("*redis", "redis-2", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("ab*bc", "abc", false),
            ("a**c", "ac", true),
        ];
        for (text, name, expected) in cases {
            assert_eq!(pattern(text).unwrap().matches(name), expected, "{text} on {name}");
        }
    }

    #[test]
    fn what_is_denied_is_left_out_of_what_is_allowed() {
        let cases = [
            (&["*"][..], "console-1", true),
            (&["*", "!console-*"], "console-1", false),
            (&["!console-*", "*"], "console-1", false),
            (&["!console-*"], "redis", true),
            (&["!console-*"], "console-1", false),
            (&["redis*", "!*-test"], "redis-test", false),
            (&["redis*", "!*-test"], "redis-live", true),
            (&["redis*", "!*-test"], "other", false),
        ];
        for (texts, name, expected) in cases {
            let patterns: Vec<_> = texts.iter().map(|text| pattern(text).unwrap()).collect();
            assert_eq!(chooses(&patterns, name), expected, "{texts:?} on {name}");
        }
    }

    #[test]
    fn only_an_allowing_pattern_without_star_names_one() {
        assert_eq!(pattern("redis").unwrap().exact(), Some("redis"));
        assert_eq!(pattern("redis*").unwrap().exact(), None);
        assert_eq!(pattern("!redis").unwrap().exact(), None);
    }

    #[test]
    fn a_pattern_that_could_match_nothing_is_refused() {
        for text in ["", " ", "!", "!*", "^driver-.+$", "driver-(a|b)", "a[0-9]", "a\nb"] {
            assert!(pattern(text).is_err(), "{text:?}");
        }
    }
}
