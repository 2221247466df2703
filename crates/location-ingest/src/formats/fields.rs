//! Fields of foreign bodies: numbers that may be absent, null or −1, forms, and the little of base64 that is needed.

use event::Reason;
use serde_json::Value;

/// A number, None where there is none.
pub(super) fn number(value: Option<&Value>, wrong: Reason) -> Result<Option<f64>, Reason> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => number.as_f64().map(Some).ok_or(wrong),
        Some(_) => Err(wrong),
    }
}

/// A number that is unknown when it is negative, as −1 is in all of these formats.
pub(super) fn known(value: Option<&Value>, wrong: Reason) -> Result<Option<f64>, Reason> {
    Ok(number(value, wrong)?.filter(|number| *number >= 0.0))
}

/// A name that is there: texts as they are, numbers as text, anything else and the empty text as absent.
pub(super) fn name(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Speeds beyond what a float holds are left to the rules, which refuse infinity.
pub(super) fn narrow(number: Option<f64>) -> Option<f32> {
    number.map(|number| number as f32)
}

/// Pairs of a query or a form (application/x-www-form-urlencoded); what is not UTF-8 becomes U+FFFD.
pub(crate) fn parameters(text: &[u8]) -> Vec<(String, String)> {
    let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            (decoded(parts.next().unwrap_or_default()), decoded(parts.next().unwrap_or_default()))
        })
        .collect()
}

fn decoded(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            (other, _) => out.push(*other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Base64 of the standard alphabet (RFC 4648), as in basic authentication.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let pairs = parameters(b"id=J%C3%B6rg+1&lat=40.7&&empty&x=%zz%4&token=a%3Db=c");
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("id", "Jörg 1"), ("lat", "40.7"), ("empty", ""), ("x", "%zz%4"), ("token", "a=b=c")]);
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar"), ("dTpw", "u:p")]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(base64("a-b"), None);
    }
}
