//! The top level in one sweep: members that lie whole in a chunk and are spelled plainly, one after the other.
//!
//! Where one is not, the sweep stops before the part that is cut or rare and says what `step` has to go on with.

use super::step::{Literal, State};
use super::view::View;
use super::{Fault, JsonScanner, Key, ModelValue, Nested, Number, ScanErrorKind};
use crate::scan::name::{self, Name};
use crate::scan::simd::Simd;

impl JsonScanner {
    /// Reads members from before a key on, as many as lie whole in the chunk and are plain. Gives the place where it
    /// left off, and what that belongs to.
    #[inline(always)]
    pub(super) fn members<S: Simd>(
        &mut self,
        simd: S,
        chunk: &[u8],
        mut state: State,
        mut at: usize,
    ) -> Result<(State, usize), Fault> {
        let mut view = View::none();
        loop {
            let byte;
            (at, byte) = token(chunk, at);
            match byte {
                None => return Ok((state, at)),
                Some(b'"') => {}
                Some(b'}') if matches!(state, State::FirstKey) => return Ok((State::End, at + 1)),
                Some(_) => return Err((ScanErrorKind::Syntax, self.offset + at as u64)),
            }
            let start = self.offset + at as u64;
            let Some(key) = view.word(simd, chunk, at) else {
                self.start = start;
                self.text.begin();
                return Ok((State::Key, at + 1));
            };
            self.classify(key, start)?;
            let (colon, byte) = token(chunk, at + key.len() + 2);
            if byte != Some(b':') {
                return Ok((State::Colon, colon));
            }
            let (first, byte) = token(chunk, colon + 1);
            (state, at) = self.value(simd, &mut view, chunk, first, byte)?;
            if !matches!(state, State::Comma) {
                return Ok((state, at));
            }
            let byte;
            (at, byte) = token(chunk, at);
            (state, at) = match byte {
                Some(b',') => (State::NextKey, at + 1),
                Some(b'}') => return Ok((State::End, at + 1)),
                _ => return Ok((State::Comma, at)),
            };
        }
    }

    /// Reads the value that begins with `first` at `at`: to behind its end, or not at all, or to where the chunk cuts
    /// it. Without a first byte the chunk ends there.
    #[inline(always)]
    fn value<S: Simd>(
        &mut self,
        simd: S,
        view: &mut View<S>,
        chunk: &[u8],
        at: usize,
        first: Option<u8>,
    ) -> Result<(State, usize), Fault> {
        let end = match first {
            Some(b'"') if self.key == Key::Model => self.plain_model(simd, view, chunk, at),
            _ if self.key == Key::Model => None,
            Some(first @ (b'"' | b'[' | b'{')) => match view.skip(simd, chunk, at, first) {
                Some(end) => Some(end),
                None => {
                    self.nested = Nested::begin(first);
                    return self.skip(simd, chunk, at + 1);
                }
            },
            Some(first @ (b't' | b'f' | b'n')) => self.whole_literal(Literal::of(first), chunk, at),
            Some(b'-' | b'0'..=b'9') => self.whole_number(chunk, at),
            _ => None,
        };
        Ok(end.map_or((State::Value, at), |end| (State::Comma, end)))
    }

    /// Skips on in a value that is not read.
    #[inline(always)]
    pub(super) fn skip<S: Simd>(
        &mut self,
        simd: S,
        chunk: &[u8],
        at: usize,
    ) -> Result<(State, usize), Fault> {
        match self.nested.skip(simd, chunk, at) {
            Ok(Some(end)) => Ok((State::Comma, end)),
            Ok(None) => Ok((State::Nested, chunk.len())),
            Err((kind, at)) => Err((kind, self.offset + at as u64)),
        }
    }

    /// Reads a model of ASCII without escapes, whose opening quote is at `at`. `None` where it is not that simple.
    #[inline(always)]
    fn plain_model<S: Simd>(
        &mut self,
        simd: S,
        view: &mut View<S>,
        chunk: &[u8],
        at: usize,
    ) -> Option<usize> {
        let word = view.word(simd, chunk, at)?;
        if !name::is_plain(word) {
            return None;
        }
        let start = self.offset + at as u64 + 1;
        let span = start..start + word.len() as u64;
        // The name is written where it stays.
        self.model.insert(ModelValue { name: Name::default(), span }).name.set(word);
        Some(at + word.len() + 2)
    }

    /// Reads a literal that lies whole in the chunk.
    #[inline(always)]
    fn whole_literal(&mut self, literal: Literal, chunk: &[u8], at: usize) -> Option<usize> {
        let rest = chunk.get(at..)?;
        let (is_whole, length) = match literal {
            Literal::True => (rest.starts_with(b"true"), 4),
            Literal::False => (rest.starts_with(b"false"), 5),
            Literal::Null => (rest.starts_with(b"null"), 4),
        };
        if is_whole && self.key == Key::Stream {
            self.facts.stream = literal.says();
        }
        is_whole.then_some(at + length)
    }

    /// Reads a number that ends within the chunk.
    #[inline(never)]
    fn whole_number(&mut self, chunk: &[u8], at: usize) -> Option<usize> {
        let (first, rest) = chunk.get(at..)?.split_first()?;
        let mut number = Number::begin(*first)?;
        for (i, byte) in rest.iter().enumerate() {
            match number.step(*byte) {
                Some(more) => number = more,
                None if !number.is_complete() => return None,
                None => {
                    if self.key == Key::MaxTokens {
                        self.facts.max_tokens = number.whole();
                    }
                    return Some(at + 1 + i);
                }
            }
        }
        None
    }

    /// Takes note of the key that has just ended and began at body offset `start`. Facts of an earlier equal key are void from here on.
    #[inline(always)]
    pub(super) fn classify(&mut self, key: &[u8], start: u64) -> Result<(), Fault> {
        // Comparing slices is a word or two; a match on patterns would go byte by byte.
        self.key = if key == b"model" {
            if self.model.is_some() {
                return Err((ScanErrorKind::ModelTwice, start));
            }
            Key::Model
        } else if key == b"stream" {
            self.facts.stream = None;
            Key::Stream
        } else if key == b"max_tokens" || key == b"max_completion_tokens" || key == b"max_output_tokens" {
            self.facts.max_tokens = None;
            Key::MaxTokens
        } else if name::is_case_variant(key) {
            return Err((ScanErrorKind::ModelCase, start));
        } else {
            Key::Other
        };
        Ok(())
    }
}

/// The next byte from `at` on that is not white space, if the chunk holds one, and where it is.
#[inline(always)]
fn token(chunk: &[u8], at: usize) -> (usize, Option<u8>) {
    match chunk.get(at) {
        Some(&byte @ b'!'..) => (at, Some(byte)),
        _ => past_space(chunk, at),
    }
}

#[inline(never)]
fn past_space(chunk: &[u8], mut at: usize) -> (usize, Option<u8>) {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = chunk.get(at) {
        at += 1;
    }
    (at, chunk.get(at).copied())
}
