//! Columns for people: each as wide as its widest cell, two spaces between them.

/// Lines of `rows` below `header`; the last column is not filled up.
pub fn lines<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: [&str; N]| {
        let mut written = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            written.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(written.trim_end());
        text.push('\n');
    };
    line(header);
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn a_column_is_as_wide_as_its_widest_cell() {
        let rows =
            [["a".into(), "long cell".into(), "x".into()], ["bb".into(), "".into(), "".into()]];
        assert_eq!(
            lines(["ONE", "TWO", "THREE"], &rows),
            "ONE  TWO        THREE\na    long cell  x\nbb\n"
        );
        assert_eq!(lines(["A", "B"], &[]), "A  B\n");
    }
}
