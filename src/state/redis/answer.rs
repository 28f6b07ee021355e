//! Kept answers as bytes.

use bytes::Bytes;

use super::super::claim::KeptAnswer;

/// The status, the number of fields, each field with its lengths, then the body; numbers little-endian.
pub(super) fn pack(answer: &KeptAnswer) -> Vec<u8> {
    let mut packed = Vec::with_capacity(answer.size());
    packed.extend_from_slice(&answer.status.to_le_bytes());
    packed.extend_from_slice(&(answer.headers.len() as u32).to_le_bytes());
    for (name, value) in &answer.headers {
        for part in [name.as_bytes(), value] {
            packed.extend_from_slice(&(part.len() as u32).to_le_bytes());
            packed.extend_from_slice(part);
        }
    }
    packed.extend_from_slice(&answer.body);
    packed
}

/// What [`pack`] was given; `None` for any other bytes.
pub(super) fn unpack(mut packed: &[u8]) -> Option<KeptAnswer> {
    let status = u16::from_le_bytes(*packed.split_off(..2)?.first_chunk()?);
    let fields = number(&mut packed)?;
    let mut headers = Vec::new();
    for _ in 0..fields {
        let name = part(&mut packed)?;
        let value = part(&mut packed)?;
        headers.push((std::str::from_utf8(name).ok()?.into(), value.into()));
    }
    Some(KeptAnswer { status, headers, body: Bytes::copy_from_slice(packed) })
}

fn number(from: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*from.split_off(..4)?.first_chunk()?))
}

fn part<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(from)? as usize;
    from.split_off(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that asks again must get the very same bytes, and no panic whatever stands in the server.
    #[test]
    fn what_was_packed_is_unpacked_and_nothing_else() {
        let headers = vec![("content-type".into(), b"text/plain"[..].into()), ("x".into(), b""[..].into())];
        let answer = KeptAnswer { status: 201, headers, body: Bytes::from_static(b"hello") };
        let packed = pack(&answer);
        assert_eq!(unpack(&packed), Some(answer));
        let fields = packed.len() - "hello".len();
        assert!((0..fields).all(|cut| unpack(&packed[..cut]).is_none()));
        assert_eq!(unpack(&[0xff; 64]), None);
    }
}
