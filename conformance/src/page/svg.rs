// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What all pictures share.

use maud::Markup;

/// Lines and colours, in a page and in a picture of its own alike.
pub(super) const STYLE: &str = include_str!("diagram.css");

/// A picture with its own style, as a file.
pub(super) fn alone(picture: &Markup) -> String {
    // XML knows no control characters, not even escaped.
    let is_odd = |c: char| c.is_control() && c != '\n' && c != '\t';
    let picture: String = picture.0.chars().map(|c| if is_odd(c) { '·' } else { c }).collect();
    // The style goes behind the opening tag; nothing but the picture's own tags has been written
    // there without being escaped.
    match picture.split_once('>') {
        Some((open, rest)) => {
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{open}><style>{STYLE}</style>{rest}\n"
            )
        }
        None => picture,
    }
}

/// As much of a text as there is room for, in one line.
pub(super) fn fit(text: &str, room: usize) -> String {
    let mut shown: String =
        text.chars().map(|c| if c.is_control() { '·' } else { c }).take(room + 1).collect();
    if shown.chars().count() > room {
        shown = shown.chars().take(room.saturating_sub(1)).chain(['…']).collect();
    }
    shown
}
