//! Which groups are exported: names in which `*` stands for any characters.

/// One entry of `--groups`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The group's name, where the pattern is one.
    pub(crate) fn exact(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&self.0)
    }

    pub(crate) fn matches(&self, group: &str) -> bool {
        let mut parts = self.0.split('*');
        // `split` gives at least one part: what the name must begin with.
        let Some(mut rest) = parts.next().and_then(|start| group.strip_prefix(start)) else { return false };
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

/// Parser of one entry of `--groups`.
///
/// # Errors
/// What to write instead.
pub(crate) fn pattern(text: &str) -> Result<Pattern, String> {
    if text.trim().is_empty() {
        return Err("give names of groups, separated by commas, or * for all".to_owned());
    }
    Ok(Pattern(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::pattern;

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
        for (text, group, expected) in cases {
            assert_eq!(pattern(text).unwrap().matches(group), expected, "{text} on {group}");
        }
    }

    #[test]
    fn only_a_pattern_without_star_names_a_group() {
        assert_eq!(pattern("redis").unwrap().exact(), Some("redis"));
        assert_eq!(pattern("redis*").unwrap().exact(), None);
    }
}
