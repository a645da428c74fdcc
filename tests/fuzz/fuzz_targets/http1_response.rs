//! HTTP/1 responses: nothing an application sends panics, spins, or grows without a limit.
#![no_main]

use bytes::BytesMut;
use http::Method;
use libfuzzer_sys::fuzz_target;
use weft_proxy::http1::{BodyDecoder, Decoded, Limits, receive_response};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    for method in [Method::GET, Method::HEAD, Method::CONNECT] {
        let mut buffer = BytesMut::from(bytes);
        while let Ok(Some(response)) = receive_response(&mut buffer, &method, &limits) {
            let mut decoder = BodyDecoder::new(response.body);
            let mut steps = 0;
            while let Ok(Some(Decoded::Data(_))) = decoder.decode(&mut buffer, &limits) {
                steps += 1;
                assert!(steps <= bytes.len(), "more pieces than bytes");
            }
            if !decoder.is_done() || !response.keep_alive {
                break;
            }
        }
    }
});
