//! From text to one JSON object, in memory the caller owns.

/// Most distinct words that are told apart.
pub const MAX_DISTINCT: usize = 12_288;

/// Slots of the table of distinct words: a power of two, a quarter of it always free.
pub const SLOTS: usize = 16_384;

/// Largest input, bytes.
pub const MAX_INPUT: usize = 1 << 20;

/// Enough for every answer: five words of 32 letters, ten numbers and the names of the members.
pub const MAX_ANSWER: usize = 1024;

const POSITIVE: &[&str] = &[
    "good",
    "excellent",
    "love",
    "loves",
    "happy",
    "best",
    "better",
    "nice",
    "wonderful",
    "fast",
    "safe",
    "secure",
    "trusted",
    "reliable",
    "clear",
    "simple",
    "easy",
    "correct",
    "works",
    "strong",
    "clean",
    "useful",
    "helpful",
    "wins",
];
const NEGATIVE: &[&str] = &[
    "bad",
    "worse",
    "worst",
    "terrible",
    "awful",
    "hate",
    "hates",
    "sad",
    "angry",
    "slow",
    "broken",
    "fails",
    "fail",
    "failure",
    "error",
    "errors",
    "bug",
    "bugs",
    "wrong",
    "ugly",
    "annoying",
    "useless",
    "lost",
    "poor",
    "weak",
    "confusing",
];
const NEGATING: &[&str] = &["not", "no", "never", "nothing", "without"];

/// A distinct word: where it stands in the input, and how often it was seen. A count of 0 is a free slot.
#[derive(Clone, Copy)]
pub struct Slot {
    start: u32,
    len: u32,
    count: u32,
}

impl Slot {
    /// A free slot.
    pub const FREE: Self = Self { start: 0, len: 0, count: 0 };
}

/// The answer while it is written.
pub struct Answer {
    bytes: [u8; MAX_ANSWER],
    len: usize,
    /// Words counted, for the metric.
    pub words: u32,
}

impl Answer {
    const fn new() -> Self {
        Self { bytes: [0; MAX_ANSWER], len: 0, words: 0 }
    }

    /// The JSON text.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = *byte;
                self.len += 1;
            }
        }
    }

    fn put_number(&mut self, number: u32) {
        if number >= 10 {
            self.put_number(number / 10);
        }
        self.put(&[b'0' + (number % 10) as u8]);
    }

    fn put_thousandths(&mut self, number: i32) {
        if number < 0 {
            self.put(b"-");
        }
        let number = number.unsigned_abs();
        self.put_number(number / 1000);
        self.put(b".");
        for divisor in [100, 10, 1] {
            self.put_number(number / divisor % 10);
        }
    }
}

/// Analyses `text`, which is lower-cased in place. `table` has [`SLOTS`] free slots.
pub fn analyse(text: &mut [u8], table: &mut [Slot]) -> Answer {
    let mut answer = Answer::new();
    let (mut distinct, mut sentences, mut positive, mut negative) = (0u32, 0u32, 0u32, 0u32);
    let (mut negated, mut open) = (false, false);
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if !byte.is_ascii_alphabetic() {
            if matches!(byte, b'.' | b'!' | b'?') {
                sentences += u32::from(open);
                (open, negated) = (false, false);
            }
            at += 1;
            continue;
        }
        let start = at;
        while let Some(letter) = text.get_mut(at).filter(|byte| byte.is_ascii_alphabetic()) {
            letter.make_ascii_lowercase();
            at += 1;
        }
        answer.words += 1;
        open = true;
        distinct += u32::from(tally(text, table, start, at - start, distinct));
        let word = text.get(start..at).unwrap_or_default();
        if listed(POSITIVE, word) {
            *(if negated { &mut negative } else { &mut positive }) += 1;
        } else if listed(NEGATIVE, word) {
            *(if negated { &mut positive } else { &mut negative }) += 1;
        }
        negated = listed(NEGATING, word);
    }
    sentences += u32::from(open);

    let sum = (positive + negative) as i32;
    let score = if sum == 0 { 0 } else { (positive as i32 - negative as i32) * 1000 / sum };
    answer.put(b"{\"words\":");
    answer.put_number(answer.words);
    answer.put(b",\"distinct\":");
    answer.put_number(distinct);
    answer.put(b",\"sentences\":");
    answer.put_number(sentences);
    answer.put(b",\"top\":[");
    put_top(&mut answer, text, table);
    answer.put(b"],\"positive\":");
    answer.put_number(positive);
    answer.put(b",\"negative\":");
    answer.put_number(negative);
    answer.put(b",\"score\":");
    answer.put_thousandths(score);
    answer.put(b",\"label\":\"");
    answer.put(match score {
        201.. => b"positive",
        ..=-201 => b"negative",
        _ => b"neutral",
    });
    answer.put(b"\"}");
    answer
}

fn listed(list: &[&str], word: &[u8]) -> bool {
    list.iter().any(|entry| entry.as_bytes() == word)
}

fn word<'a>(text: &'a [u8], slot: &Slot) -> &'a [u8] {
    text.get(slot.start as usize..).and_then(|rest| rest.get(..slot.len as usize)).unwrap_or_default()
}

/// Counts a word; whether it is a new one. Beyond [`MAX_DISTINCT`] no new words are taken.
fn tally(text: &[u8], table: &mut [Slot], start: usize, len: usize, distinct: u32) -> bool {
    let this = Slot { start: start as u32, len: len as u32, count: 1 };
    let letters = word(text, &this);
    // FNV-1a: any hash would do, the answer does not depend on the order of the table.
    let hash =
        letters.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let mut index = hash as usize % SLOTS;
    while let Some(slot) = table.get_mut(index) {
        if slot.count == 0 {
            if distinct as usize >= MAX_DISTINCT {
                return false;
            }
            *slot = this;
            return true;
        }
        if word(text, slot) == letters {
            slot.count += 1;
            return false;
        }
        index = (index + 1) % SLOTS;
    }
    false
}

/// The most frequent words of 4 to 32 letters, at most five, equal counts in alphabetical order.
fn put_top(answer: &mut Answer, text: &[u8], table: &mut [Slot]) {
    for round in 0..5 {
        let candidates = table.iter_mut().filter(|slot| slot.count > 0 && (4..=32).contains(&slot.len));
        let best =
            candidates.max_by(|a, b| a.count.cmp(&b.count).then_with(|| word(text, b).cmp(word(text, a))));
        let Some(best) = best else { return };
        if round > 0 {
            answer.put(b",");
        }
        answer.put(b"{\"word\":\"");
        answer.put(word(text, best));
        answer.put(b"\",\"count\":");
        answer.put_number(best.count);
        answer.put(b"}");
        best.count = 0;
    }
}
