//! json_lines
