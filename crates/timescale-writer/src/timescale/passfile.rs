//! libpq's password file: lines of `HOST:PORT:DATABASE:USER:PASSWORD`, the first that fits counts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const COMMENT: char = '#';
const ANY: &str = "*";
const FIELDS: usize = 5;
const OTHERS_MAY_READ: u32 = 0o077;

/// What a line must fit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) host: &'a str,
    pub(super) port: &'a str,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// The password for `wanted`, if the file is there and has it. As with libpq, a file that others may read is left out.
pub(super) fn look_up(path: &Path, wanted: Wanted<'_>) -> Option<String> {
    let is_private = fs::metadata(path).ok()?.permissions().mode() & OTHERS_MAY_READ == 0;
    if !is_private {
        tracing::warn!(path = %path.display(), "password file left out: others may read it; set its mode to 0600");
        return None;
    }
    find(&fs::read_to_string(path).ok()?, wanted)
}

fn find(text: &str, wanted: Wanted<'_>) -> Option<String> {
    let Wanted { host, port, database, user } = wanted;
    let lines = text.lines().filter(|line| !line.starts_with(COMMENT));
    lines.map(fields).find_map(|fields| {
        let [.., password] = <[String; FIELDS]>::try_from(fields).ok().filter(|fields| {
            let pairs = fields.iter().zip([host, port, database, user]);
            pairs.into_iter().all(|(field, wanted)| field == ANY || field == wanted)
        })?;
        Some(password)
    })
}

/// A backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' if fields.len() < FIELDS => fields.push(String::new()),
            '\\' => fields.last_mut().into_iter().for_each(|field| field.extend(characters.next())),
            _ => fields.last_mut().into_iter().for_each(|field| field.push(character)),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted<'static> = Wanted { host: "h", port: "5432", database: "d", user: "u" };

    #[test]
    fn the_first_line_that_fits_counts() {
        for (text, password) in [
            ("h:5432:d:u:secret", Some("secret")),
            ("other:5432:d:u:no\n# h:5432:d:u:no\n*:*:*:u:any\nh:5432:d:u:late", Some("any")),
            (r"h:5432:d:u:a\:b\\c", Some(r"a:b\c")),
            ("h:5432:d:u:a:b", Some("a:b")),
            ("h:5432:d:u", None),
            ("h:5433:d:u:no\nh:5432:e:u:no\nh:5432:d:v:no", None),
            ("", None),
        ] {
            assert_eq!(find(text, WANTED).as_deref(), password, "{text}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_left_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "*:*:*:*:secret\n").unwrap();
        let with_mode = |mode| {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            look_up(file.path(), WANTED)
        };
        assert_eq!(with_mode(0o600).as_deref(), Some("secret"));
        assert_eq!(with_mode(0o640), None);
        assert_eq!(look_up(Path::new("/nowhere"), WANTED), None);
    }
}
