//! A connection string as libpq reads it: a URI, or `keyword=value` pairs (its documentation, "Connection Strings").

use std::collections::BTreeMap;

/// Values by libpq's keyword.
pub(super) type Keywords = BTreeMap<String, String>;

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// Reads a connection string. Which keywords there are is the caller's business.
///
/// # Errors
/// What is wrong with it, without any part of it: it may hold a password.
pub(super) fn parse(text: &str) -> Result<Keywords, &'static str> {
    match SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme)) {
        Some(rest) => parse_uri(rest),
        None if text.contains("://") => Err("it begins with another scheme"),
        None => parse_pairs(text),
    }
}

/// `[USER[:PASSWORD]@][HOST[:PORT],…][/DATABASE][?KEYWORD=VALUE&…]`, each part percent-encoded.
fn parse_uri(rest: &str) -> Result<Keywords, &'static str> {
    let mut found = Keywords::new();
    // As in libpq, credentials end at the first @ that stands before any slash.
    let path = rest.find('/').unwrap_or(rest.len());
    let rest = match rest[..path].split_once('@') {
        Some((credentials, _)) => {
            put_credentials(&mut found, credentials)?;
            &rest[credentials.len() + 1..]
        }
        None => rest,
    };
    let (hosts, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    put_hosts(&mut found, hosts)?;
    let (database, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    put(&mut found, "dbname", database.strip_prefix('/').unwrap_or_default())?;
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (keyword, value) = parameter.split_once('=').ok_or("a parameter has no =")?;
        match (decode(keyword)?.as_str(), value) {
            // libpq takes this form of JDBC's.
            ("ssl", "true") => put(&mut found, "sslmode", "require")?,
            (keyword, value) => {
                found.insert(keyword.to_owned(), decode(value)?);
            }
        }
    }
    Ok(found)
}

fn put_credentials(found: &mut Keywords, credentials: &str) -> Result<(), &'static str> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    put(found, "user", user)?;
    put(found, "password", password)
}

fn put_hosts(found: &mut Keywords, hosts: &str) -> Result<(), &'static str> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(bracketed) => {
                let (name, after) = bracketed.split_once(']').ok_or("a [ is not closed")?;
                let port = if after.is_empty() { Some("") } else { after.strip_prefix(':') };
                (name, port.ok_or("there is something behind a ]")?)
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(decode(name)?);
        ports.push(decode(port)?);
    }
    for (keyword, values) in [("host", names), ("port", ports)] {
        if values.iter().any(|value| !value.is_empty()) {
            found.insert(keyword.to_owned(), values.join(","));
        }
    }
    Ok(())
}

fn put(found: &mut Keywords, keyword: &str, value: &str) -> Result<(), &'static str> {
    if !value.is_empty() {
        found.insert(keyword.to_owned(), decode(value)?);
    }
    Ok(())
}

fn decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) if high + low > 0 => bytes.push(u8::try_from(high * 16 + low).unwrap_or_default()),
            _ => return Err("a % is not followed by two hexadecimal digits; write %25 for the sign itself"),
        }
    }
    String::from_utf8(bytes).map_err(|_| "it is no UTF-8")
}

/// `KEYWORD = VALUE …`; a value with spaces stands in single quotes, and a backslash takes the next character as it is.
fn parse_pairs(text: &str) -> Result<Keywords, &'static str> {
    let mut found = Keywords::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (keyword, after) = rest.split_once('=').ok_or("a keyword has no =")?;
        let keyword = keyword.trim_end();
        if keyword.is_empty() || keyword.contains(char::is_whitespace) {
            return Err("a keyword has no =");
        }
        let (value, after) = take_value(after.trim_start())?;
        found.insert(keyword.to_owned(), value);
        rest = after.trim_start();
    }
    Ok(found)
}

fn take_value(text: &str) -> Result<(String, &str), &'static str> {
    let (quoted, text) = text.strip_prefix('\'').map_or((false, text), |inner| (true, inner));
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            _ if !quoted && character.is_whitespace() => return Ok((value, &text[at..])),
            _ => value.push(character),
        }
    }
    if quoted { Err("a quote is not closed") } else { Ok((value, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keywords(text: &str) -> String {
        let found = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        found.iter().map(|(keyword, value)| format!("{keyword}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn uris_read_as_libpq_reads_them() {
        for (uri, expected) in [
            ("postgres://", ""),
            ("postgresql://h", "host=h"),
            ("postgres://u@h:1/d", "dbname=d host=h port=1 user=u"),
            ("postgres://u:p%40%2F@[::1]:1/d%20e", "dbname=d e host=::1 password=p@/ port=1 user=u"),
            ("postgres://a,b:2/d", "dbname=d host=a,b port=,2"),
            ("postgres://u:p?x@h/d", "dbname=d host=h password=p?x user=u"),
            ("postgres://%2Frun%2Fpg/d", "dbname=d host=/run/pg"),
            ("postgres:///d?host=h&sslmode=verify-full", "dbname=d host=h sslmode=verify-full"),
            ("postgres://h?ssl=true", "host=h sslmode=require"),
            ("postgres://h/?options=-c%20a%3Db", "host=h options=-c a=b"),
        ] {
            assert_eq!(keywords(uri), expected, "{uri}");
        }
    }

    #[test]
    fn pairs_read_as_libpq_reads_them() {
        for (text, expected) in [
            ("", ""),
            ("host=h dbname = d", "dbname=d host=h"),
            (r"password='a b\'c\\' user=u", r"password=a b'c\ user=u"),
            (r"user=a\ b host=", "host= user=a b"),
        ] {
            assert_eq!(keywords(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_string() {
        for wrong in [
            "mysql://secret",
            "postgres://u:sec%ret@h",
            "postgres://u:secret%00@h",
            "postgres://[::1",
            "postgres://[::1]x",
            "postgres://h?secret",
            "secret",
            "host=h secret",
            "password='secret",
        ] {
            assert!(!parse(wrong).unwrap_err().contains("secret"), "{wrong}");
        }
    }
}
