//! Questions that come from the control plane to the workers: how they would treat a request, and what
//! became of one. Each worker answers from its own state, with the code that serves.

use std::time::Duration;

use http::{HeaderName, Method, Uri, Version};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use weft_proto::v1alpha1 as wire;

use crate::model::{FieldValue, Fields, RequestHead, Text};

/// Questions that wait for one worker; one more is answered with "busy".
pub const QUESTIONS_MAX: usize = 8;
/// How long the workers may take. They wait for nothing but the control plane's own answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Header lines of a request that is asked about; more are refused.
const HEADERS_MAX: usize = 100;

/// A question to a worker, and where its answer goes.
#[derive(Debug)]
pub struct Question {
    pub about: About,
    pub answer: oneshot::Sender<Value>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum About {
    /// How this request of our workload would be treated.
    Request {
        /// Host and port that it is sent to.
        to: Text,
        head: Box<RequestHead>,
    },
    /// What became of the recent requests of this trace.
    Trace([u8; 16]),
}

/// The workers that can be asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Workers(pub Vec<mpsc::Sender<Question>>);

impl Workers {
    /// Asks all of them and puts their answers together.
    pub(super) async fn explain(&self, question: wire::ExplainQuestion) -> Result<String, String> {
        let about = about(question)?;
        let mut answers = Vec::new();
        for worker in &self.0 {
            let (answer, receiver) = oneshot::channel();
            let about = about.clone();
            worker
                .try_send(Question { about, answer })
                .map_err(|_| "the proxy is busy with other questions; ask again".to_owned())?;
            answers.push(receiver);
        }
        let mut whole = Value::Null;
        for answer in answers {
            let answer = timeout(ANSWER_TIMEOUT, answer).await;
            let answer = answer
                .map_err(|_| "the proxy did not find the answer in time".to_owned())?
                .map_err(|_| "the proxy is shutting down".to_owned())?;
            merge(&mut whole, answer);
        }
        Ok(whole.to_string())
    }
}

/// Workers agree in everything but what they counted: lists of requests are joined, and the numbers of
/// requests outstanding at an endpoint are added up.
fn merge(whole: &mut Value, answer: Value) {
    if whole.is_null() {
        *whole = answer;
        return;
    }
    if let (Some(ours), Value::Array(theirs)) = (
        whole.get_mut("requests").and_then(Value::as_array_mut),
        &answer["requests"],
    ) {
        ours.extend(theirs.iter().cloned());
    }
    let backends = whole.get_mut("backends").and_then(Value::as_array_mut);
    for (index, backend) in backends.into_iter().flatten().enumerate() {
        let endpoints = backend.get_mut("endpoints").and_then(Value::as_array_mut);
        let theirs = &answer["backends"][index]["endpoints"];
        for endpoint in endpoints.into_iter().flatten() {
            let same = |other: &&Value| other["id"] == endpoint["id"];
            let Some(other) = theirs.as_array().into_iter().flatten().find(same) else {
                continue;
            };
            let sum = endpoint["requests"].as_u64().unwrap_or_default()
                + other["requests"].as_u64().unwrap_or_default();
            endpoint["requests"] = sum.into();
            if other["state"] != "usable" {
                endpoint["state"] = other["state"].clone();
            }
        }
    }
}

fn about(question: wire::ExplainQuestion) -> Result<About, String> {
    if question.trace_id.is_empty() {
        let (to, head) = request(question)?;
        return Ok(About::Request {
            to,
            head: Box::new(head),
        });
    }
    let text = &question.trace_id;
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = u128::from_str_radix(text, 16)
        .ok()
        .filter(|id| is_hex && *id != 0)
        .ok_or_else(|| format!("{text:?} is no trace ID: 32 hex digits"))?;
    Ok(About::Trace(digits.to_be_bytes()))
}

/// Where a request is sent, and its head. A client's Host says what the request is for, whatever address it
/// is sent to.
fn request(question: wire::ExplainQuestion) -> Result<(Text, RequestHead), String> {
    let url = question.url;
    let uri: Uri = url.parse().map_err(|error| format!("{url:?}: {error}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("{url:?} is no http://HOST[:PORT]/PATH"));
    };
    let text =
        |part: &str| Text::try_from(part).map_err(|_| format!("{part:?} is not visible ASCII"));
    let method = match question.method.as_str() {
        "" => Method::GET,
        method => method
            .parse()
            .map_err(|_| format!("{method:?} is no method"))?,
    };
    if question.headers.len() > HEADERS_MAX {
        return Err(format!("more than {HEADERS_MAX} headers"));
    }
    let to = text(authority.as_str())?;
    let mut head = RequestHead {
        method,
        scheme: Some(text(scheme)?),
        authority: Some(to.clone()),
        path: text(uri.path_and_query().map_or("/", |path| path.as_str()))?,
        version: Version::HTTP_11,
        upgrade: None,
        headers: Fields::new(),
    };
    for wire::Header { name, value } in question.headers {
        let field: HeaderName = name
            .parse()
            .map_err(|_| format!("{name:?} is no header name"))?;
        if field == http::header::HOST {
            head.authority = Some(text(&value)?);
            continue;
        }
        let value =
            FieldValue::from_text(&value).map_err(|_| format!("{value:?} is no header value"))?;
        head.headers.append(field, value);
    }
    Ok((to, head))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests() {
        let check = |method: &str, url: &str, header: (&str, &str), expect: Result<&str, &str>| {
            let asked = request(wire::ExplainQuestion {
                method: method.to_owned(),
                url: url.to_owned(),
                headers: vec![wire::Header {
                    name: header.0.to_owned(),
                    value: header.1.to_owned(),
                }],
                trace_id: String::new(),
            });
            let seen = asked.map(|(to, head)| {
                let host = head.authority.as_deref().unwrap_or_default().to_owned();
                let RequestHead {
                    method,
                    path,
                    headers,
                    ..
                } = head;
                format!("{to} {method} {host} {path} {headers:?}")
            });
            match (seen, expect) {
                (Ok(seen), Ok(expect)) => assert_eq!(seen, expect),
                (Err(seen), Err(expect)) => assert!(seen.contains(expect), "{seen}"),
                (seen, _) => panic!("{url}: {seen:?}"),
            }
        };
        let x = ("x", "1");
        check(
            "",
            "http://orders",
            x,
            Ok(r#"orders GET orders / {"x": "1"}"#),
        );
        check(
            "PUT",
            "http://a:8080/b?c",
            x,
            Ok(r#"a:8080 PUT a:8080 /b?c {"x": "1"}"#),
        );
        check(
            "",
            "http://orders",
            ("Host", "a.test"),
            Ok("orders GET a.test / {}"),
        );
        check("", "/cart", x, Err("is no http://"));
        check("", "http://a b/", x, Err("invalid"));
        check("a b", "http://a/", x, Err("no method"));
        check("", "http://a/", ("a b", ""), Err("no header name"));
        check("", "http://a/", ("a", "\n"), Err("no header value"));
    }

    #[test]
    fn traces() {
        let check = |id: &str, expect: bool| {
            let asked = about(wire::ExplainQuestion {
                trace_id: id.to_owned(),
                ..wire::ExplainQuestion::default()
            });
            assert_eq!(matches!(asked, Ok(About::Trace(_))), expect, "{id}");
        };
        check("0af7651916cd43dd8448eb211c80319c", true);
        check("00000000000000000000000000000000", false);
        check("0af7", false);
        check("+af7651916cd43dd8448eb211c80319c", false);
        check("zaf7651916cd43dd8448eb211c80319c", false);
    }

    #[test]
    fn answers_of_several_workers() {
        let one = |requests: u32, state: &str| {
            let endpoint = json!({"id": "a", "state": state, "requests": requests});
            json!({"backends": [{"endpoints": [endpoint]}]})
        };
        let mut whole = Value::Null;
        merge(&mut whole, one(1, "usable"));
        merge(&mut whole, one(2, "ejected"));
        assert_eq!(whole, one(3, "ejected"));
        let mut whole = json!({"requests": [1]});
        merge(&mut whole, json!({"requests": [2, 3]}));
        assert_eq!(whole, json!({"requests": [1, 2, 3]}));
    }
}
