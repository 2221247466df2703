//! What is in the bytes of a position, as far as they can be read, and where they break. Pure.
//!
//! The protobuf encoding: each field is a tag (number and wire type) and its value; see proto/. The first thing that
//! does not follow it ends the reading, with its place.

use std::fmt::Write as _;

/// Fields that are shown; a position has eight.
const MAX_FIELDS: usize = 64;
/// Bytes of a hex dump.
pub(crate) const DUMP_BYTES: usize = 1024;
const TEXT_MAX_CHARS: usize = 200;
const BYTES_A_LINE: usize = 16;

/// Name and wire type of each field of a position.
const FIELDS: [(u64, &str, Wire); 8] = [
    (1, "driver_id", Wire::Length),
    (2, "latitude", Wire::Eight),
    (3, "longitude", Wire::Eight),
    (4, "heading", Wire::Four),
    (5, "speed", Wire::Four),
    (6, "timestamp", Wire::Varint),
    (7, "received_at", Wire::Varint),
    (8, "effective_at", Wire::Varint),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Varint,
    Eight,
    Length,
    Four,
}

/// One field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    /// Where its tag is.
    pub(crate) at: usize,
    pub(crate) number: u64,
    /// As the schema names it.
    pub(crate) name: &'static str,
    pub(crate) value: Value,
}

/// What it holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Integer(i64),
    Real(f64),
    Text(String),
    Other(String),
}

impl Value {
    pub(crate) fn show(&self) -> String {
        match self {
            Self::Integer(value) => value.to_string(),
            Self::Real(value) => value.to_string(),
            Self::Text(text) => format!("\"{}\"", crate::table::tame(text, TEXT_MAX_CHARS)),
            Self::Other(text) => text.clone(),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Self::Integer(value) => (*value).into(),
            // NaN and the infinities have no form in JSON.
            Self::Real(value) if value.is_finite() => (*value).into(),
            Self::Real(value) => value.to_string().into(),
            Self::Text(text) | Self::Other(text) => text.as_str().into(),
        }
    }
}

/// The fields that were read, and what ended the reading before the bytes did.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Anatomy {
    pub(crate) fields: Vec<Field>,
    pub(crate) broke: Option<Break>,
}

/// Where the bytes stop being a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Break {
    pub(crate) at: usize,
    pub(crate) why: String,
}

/// Takes bytes apart.
pub(crate) fn dissect(bytes: &[u8]) -> Anatomy {
    let mut anatomy = Anatomy::default();
    let mut cursor = Cursor { bytes, at: 0 };
    while cursor.at < bytes.len() {
        if anatomy.fields.len() == MAX_FIELDS {
            anatomy.broke = Some(Break { at: cursor.at, why: format!("more than {MAX_FIELDS} fields") });
            break;
        }
        match cursor.field() {
            Ok(field) => anatomy.fields.push(field),
            Err(broke) => {
                anatomy.broke = Some(broke);
                break;
            }
        }
    }
    anatomy
}

struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    fn field(&mut self) -> Result<Field, Break> {
        let at = self.at;
        let tag = self.varint("a tag")?;
        let number = tag >> 3;
        let known = FIELDS.iter().find(|(of, _, _)| *of == number);
        let name = known.map_or("not in the schema", |(_, name, _)| *name);
        let broke = |why: String| Break { at, why };
        if number == 0 {
            return Err(broke("field number 0 does not exist".to_owned()));
        }
        let wire = match tag & 7 {
            0 => Wire::Varint,
            1 => Wire::Eight,
            2 => Wire::Length,
            5 => Wire::Four,
            other => {
                return Err(broke(format!("field {number} ({name}) has the wire type {other}, which no field has")));
            }
        };
        if let Some((_, _, expected)) = known.filter(|(_, _, expected)| *expected != wire) {
            return Err(broke(format!("field {number} ({name}) comes as {wire:?}, and should be {expected:?}")));
        }
        let value = self.value(wire, name, known.is_some())?;
        Ok(Field { at, number, name, value })
    }

    fn value(&mut self, wire: Wire, name: &str, is_known: bool) -> Result<Value, Break> {
        Ok(match wire {
            Wire::Varint => Value::Integer(self.varint(name)?.cast_signed()),
            Wire::Eight => Value::Real(f64::from_le_bytes(self.array(name)?)),
            Wire::Four => Value::Real(f64::from(f32::from_le_bytes(self.array(name)?))),
            Wire::Length => {
                let at = self.at;
                let length = usize::try_from(self.varint(name)?).unwrap_or(usize::MAX);
                let bytes = self.take(length, name)?;
                match std::str::from_utf8(bytes) {
                    Ok(text) => Value::Text(text.to_owned()),
                    Err(_) if is_known => return Err(Break { at, why: format!("{name} is not UTF-8") }),
                    Err(_) => Value::Other(format!("{length} bytes")),
                }
            }
        })
    }

    fn varint(&mut self, what: &str) -> Result<u64, Break> {
        let begun = self.at;
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array(what)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Break { at: begun, why: format!("{what}: a varint of more than ten bytes") })
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Break> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn take(&mut self, length: usize, what: &str) -> Result<&'b [u8], Break> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..length) else {
            let why = format!("the bytes end inside {what}: {length} are needed, {} are there", rest.len());
            return Err(Break { at: self.at, why });
        };
        self.at += length;
        Ok(taken)
    }
}

/// The first [`DUMP_BYTES`] as `hexdump -C` shows them.
pub(crate) fn hex_dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, chunk) in bytes[..bytes.len().min(DUMP_BYTES)].chunks(BYTES_A_LINE).enumerate() {
        let hex = chunk.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x} ");
            hex
        });
        let shown: String = chunk.iter().map(|b| if (0x20..0x7f).contains(b) { char::from(*b) } else { '.' }).collect();
        let _ = writeln!(text, "{:08x}  {hex:<48} |{shown}|", line * BYTES_A_LINE);
    }
    if bytes.len() > DUMP_BYTES {
        let _ = writeln!(text, "… {} bytes more; `export` has them all", bytes.len() - DUMP_BYTES);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// driver_id "d", latitude 1.5.
    const GOOD: [u8; 12] = [0x0a, 1, b'd', 0x11, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f];

    fn broke(bytes: &[u8]) -> (usize, Break) {
        let anatomy = dissect(bytes);
        (anatomy.fields.len(), anatomy.broke.unwrap())
    }

    #[test]
    fn fields_are_named_and_placed() {
        let anatomy = dissect(&[&GOOD[..], &[0x30, 0x96, 1], &[0x7a, 1, 0xff]].concat());
        let shown: Vec<_> = anatomy.fields.iter().map(|f| (f.at, f.number, f.name, f.value.show())).collect();
        assert_eq!(shown[0], (0, 1, "driver_id", "\"d\"".to_owned()));
        assert_eq!(shown[1], (3, 2, "latitude", "1.5".to_owned()));
        assert_eq!(shown[2], (12, 6, "timestamp", "150".to_owned()));
        assert_eq!(shown[3], (15, 15, "not in the schema", "1 bytes".to_owned()));
        assert_eq!(anatomy.broke, None);
        assert_eq!(dissect(b""), Anatomy::default());
    }

    #[test]
    fn the_first_fault_has_its_place() {
        for (bytes, fields, at, part) in [
            (&GOOD[..7], 1, 4, "the bytes end inside latitude: 8 are needed, 3 are there"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f][..], 0, 6, "inside driver_id"),
            (&[0x10, 1], 0, 0, "field 2 (latitude) comes as Varint, and should be Eight"),
            (&[0x0a, 1, 0xff], 0, 1, "driver_id is not UTF-8"),
            (&[0x02], 0, 0, "field number 0"),
            (&[0x0b], 0, 0, "wire type 3"),
            (&[0xff; 11], 0, 0, "more than ten bytes"),
            (b"{\"latitude\":1}", 0, 0, "field 15"),
        ] {
            let (read, broke) = broke(bytes);
            assert!((read, broke.at) == (fields, at) && broke.why.contains(part), "{bytes:?}: {read} {broke:?}");
        }
    }

    #[test]
    fn what_is_long_is_shown_bounded() {
        let noise = vec![0xa5; 900_000];
        let dump = hex_dump(&noise);
        assert!(dump.len() < 6_000 && dump.ends_with("… 898976 bytes more; `export` has them all\n"), "{dump}");
        assert!(hex_dump(b"ab\x00").starts_with("00000000  61 62 00 "));
        let many = [0x48, 1].repeat(10_000);
        assert_eq!(broke(&many).0, MAX_FIELDS);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for seed in 0..=255_u8 {
            for length in 0..64_u8 {
                let bytes: Vec<_> = (0..length).map(|n| n.wrapping_mul(31).wrapping_add(seed) ^ (seed >> 3)).collect();
                let _ = dissect(&bytes);
            }
        }
    }
}
