//! Bodies from bytes (RFC 9112 6 and 7).

use bytes::{Buf, Bytes, BytesMut};

use super::parse::{Of, fields, find_section, trim};
use super::{BodyLength, Limits, Refusal};
use crate::model::Fields;

/// Longest chunk-size line, extensions included; a longer one is refused.
const CHUNK_LINE_MAX: usize = 256;

/// The state of one body that is being received.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Exactly(u64),
    UntilClose,
    ChunkLine,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Done,
}

/// A step of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    Data(Bytes),
    /// The end, with the trailer fields (empty when there were none).
    End(Fields),
}

impl BodyDecoder {
    pub fn new(length: BodyLength) -> Self {
        let state = match length {
            BodyLength::None | BodyLength::Exactly(0) => State::Done,
            BodyLength::Exactly(bytes) => State::Exactly(bytes),
            BodyLength::Chunked => State::ChunkLine,
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Whether the whole body has been taken.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the connection's end is this body's regular end.
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Takes the next step off `buffer`, or nothing when more bytes are needed. After the end it
    /// gives the end again.
    pub fn decode(
        &mut self,
        buffer: &mut BytesMut,
        limits: &Limits,
    ) -> Result<Option<Decoded>, Refusal> {
        loop {
            match self.state {
                State::Done => return Ok(Some(Decoded::End(Fields::new()))),
                State::Exactly(left) => {
                    let Some(data) = take_data(buffer, left) else {
                        return Ok(None);
                    };
                    let left = left - data.len() as u64;
                    self.state = if left == 0 {
                        State::Done
                    } else {
                        State::Exactly(left)
                    };
                    return Ok(Some(Decoded::Data(data)));
                }
                State::UntilClose => return Ok(take_data(buffer, u64::MAX).map(Decoded::Data)),
                State::ChunkLine => {
                    let Some(size) = take_chunk_size(buffer)? else {
                        return Ok(None);
                    };
                    self.state = if size == 0 {
                        State::Trailers
                    } else {
                        State::ChunkData(size)
                    };
                }
                State::ChunkData(left) => {
                    let Some(data) = take_data(buffer, left) else {
                        return Ok(None);
                    };
                    let left = left - data.len() as u64;
                    self.state = if left == 0 {
                        State::ChunkEnd
                    } else {
                        State::ChunkData(left)
                    };
                    return Ok(Some(Decoded::Data(data)));
                }
                State::ChunkEnd => {
                    if buffer.len() < 2 {
                        let plausible = buffer.is_empty() || buffer[0] == b'\r';
                        return if plausible { Ok(None) } else { Err(NOT_ENDED) };
                    }
                    if !buffer.starts_with(b"\r\n") {
                        return Err(NOT_ENDED);
                    }
                    let _ = buffer.split_to(2);
                    self.state = State::ChunkLine;
                }
                State::Trailers => {
                    let Some(end) = find_section(buffer, limits)? else {
                        return Ok(None);
                    };
                    let mut trailers = fields(&buffer[..end], limits, Of::Other)?;
                    buffer.advance(end);
                    drop_forbidden(&mut trailers);
                    self.state = State::Done;
                    return Ok(Some(Decoded::End(trailers)));
                }
            }
        }
    }
}

const NOT_ENDED: Refusal = Refusal::Malformed("a chunk doesn't end where its size says");

/// RFC 9110 6.5.1: framing, routing and connection fields have no place in trailers.
fn drop_forbidden(trailers: &mut Fields) {
    for name in [
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "te",
        "trailer",
        "upgrade",
        "keep-alive",
    ] {
        trailers.remove(name);
    }
}

fn take_data(buffer: &mut BytesMut, at_most: u64) -> Option<Bytes> {
    if buffer.is_empty() {
        return None;
    }
    let length = usize::try_from(at_most).map_or(buffer.len(), |most| most.min(buffer.len()));
    Some(buffer.split_to(length).freeze())
}

/// `chunk-size [ chunk-ext ] CRLF`; extensions are dropped, with the blanks before them (RFC 9112 7.1.1).
fn take_chunk_size(buffer: &mut BytesMut) -> Result<Option<u64>, Refusal> {
    let malformed = Refusal::Malformed;
    let line_end = buffer.iter().position(|b| *b == b'\n');
    let Some(line_end) = line_end else {
        return if buffer.len() > CHUNK_LINE_MAX {
            Err(malformed("a chunk-size line is too long"))
        } else {
            Ok(None)
        };
    };
    if line_end > CHUNK_LINE_MAX {
        return Err(malformed("a chunk-size line is too long"));
    }
    let line = buffer[..line_end]
        .strip_suffix(b"\r")
        .ok_or(malformed("a chunk-size line ends with a bare LF"))?;
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 16 {
        return Err(malformed("a chunk size is not a hexadecimal number"));
    }
    let extension = &line[digits..];
    let printable = |b: &u8| *b == b'\t' || (0x20..0x7f).contains(b) || *b >= 0x80;
    let is_extension = trim(extension).starts_with(b";") && extension.iter().all(printable);
    if !extension.is_empty() && !is_extension {
        return Err(malformed(
            "a chunk size is followed by something else than an extension",
        ));
    }
    let text = std::str::from_utf8(&line[..digits]).unwrap_or_default();
    let size = u64::from_str_radix(text, 16).map_err(|_| malformed("a chunk size is too large"))?;
    let _ = buffer.split_to(line_end + 1);
    Ok(Some(size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `input` in pieces of `step` bytes; what came out, or the refusal.
    fn run(
        length: BodyLength,
        input: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, bool, String, usize), Refusal> {
        let mut decoder = BodyDecoder::new(length);
        let (mut buffer, mut body) = (BytesMut::new(), Vec::new());
        for piece in input.chunks(step.max(1)) {
            buffer.extend_from_slice(piece);
            while let Some(step) = decoder.decode(&mut buffer, &Limits::default())? {
                match step {
                    Decoded::Data(data) => body.extend_from_slice(&data),
                    Decoded::End(trailers) => {
                        if trailers.is_empty() && decoder.is_done() && !buffer.is_empty() {
                            // What follows belongs to the next message.
                        }
                        let left = input.len() - consumed(&body, &buffer, input);
                        return Ok((body, true, format!("{trailers:?}"), left));
                    }
                }
            }
        }
        Ok((body, false, String::new(), 0))
    }

    fn consumed(_body: &[u8], buffer: &BytesMut, input: &[u8]) -> usize {
        input.len() - buffer.len()
    }

    #[test]
    fn chunked() {
        let check = |input: &str, expect: &str| {
            for step in [1, 2, 3, 7, 1000] {
                let seen = match run(BodyLength::Chunked, input.as_bytes(), step) {
                    Ok((body, done, trailers, _)) => {
                        format!(
                            "{} {} {}",
                            String::from_utf8_lossy(&body),
                            if done { "end" } else { "more" },
                            trailers
                        )
                    }
                    Err(refusal) => format!("refused: {refusal}"),
                };
                assert_eq!(seen.trim_end(), expect, "{input:?} in steps of {step}");
            }
        };
        check("5\r\nhello\r\n0\r\n\r\n", "hello end {}");
        check(
            "5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "hello0123456789 end {}",
        );
        check(
            "0\r\nx-sum: 1\r\ncontent-length: 9\r\n\r\n",
            " end {\"x-sum\": \"1\"}",
        );
        check("5\r\nhel", "hel more");
        check(
            "5\r\nhelloX",
            "refused: a chunk doesn't end where its size says",
        );
        check(
            "5\nhello\r\n0\r\n\r\n",
            "refused: a chunk-size line ends with a bare LF",
        );
        check("\r\n", "refused: a chunk size is not a hexadecimal number");
        check(
            "0x5\r\nhello\r\n",
            "refused: a chunk size is followed by something else than an extension",
        );
        check(
            "-5\r\n",
            "refused: a chunk size is not a hexadecimal number",
        );
        check(
            "5 \r\nhello\r\n",
            "refused: a chunk size is followed by something else than an extension",
        );
        check("5 \t;a=b\r\nhello\r\n0 ;c\r\n\r\n", "hello end {}");
        check(
            "5 a;b\r\nhello\r\n",
            "refused: a chunk size is followed by something else than an extension",
        );
        check(
            "11111111111111111\r\n",
            "refused: a chunk size is not a hexadecimal number",
        );
        check(
            "5;a\0\r\nhello\r\n",
            "refused: a chunk size is followed by something else than an extension",
        );
        check(
            &format!("5;{}\r\n", "a".repeat(300)),
            "refused: a chunk-size line is too long",
        );
    }

    proptest! {
        /// However the bytes are cut, the body that comes out is the one that went in, and what
        /// follows it is left alone.
        #[test]
        fn any_cut_gives_the_same(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..6), step in 1usize..40) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                input.extend_from_slice(chunk);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\n");
            let (body, done, _, left) = run(BodyLength::Chunked, &input, step).unwrap();
            prop_assert!(done);
            prop_assert_eq!(body, chunks.concat());
            prop_assert_eq!(left, 0);
        }

        /// No input makes it panic.
        #[test]
        fn never_panics(input in prop::collection::vec(any::<u8>(), 0..300), step in 1usize..40) {
            let _ = run(BodyLength::Chunked, &input, step);
        }
    }
}
