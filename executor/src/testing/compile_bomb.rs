//! A module that is small to send and long to compile; `benches/exec/neighbours.rs` includes this file as well.

/// What makes a compiler work for longer than it may, and for far longer than its smallest budget in these tests: millions of
/// branches that nothing folds, in functions of an ordinary size.
pub(crate) fn compile_bomb() -> Vec<u8> {
    fn number(mut value: usize, into: &mut Vec<u8>) {
        while value > 0x7f {
            into.push(value as u8 | 0x80);
            value >>= 7;
        }
        into.push(value as u8);
    }
    const FUNCTIONS: usize = 100;
    // (if (local.get 0) (then (local.set 0 (i32.mul (local.get 0) (local.get 0)))))
    let branch = [0x20, 0, 0x04, 0x40, 0x20, 0, 0x20, 0, 0x6c, 0x21, 0, 0x0b];
    let mut body = vec![0];
    body.extend(branch.repeat(10_000));
    body.push(0x0b);
    let mut code = Vec::new();
    number(FUNCTIONS, &mut code);
    for _ in 0..FUNCTIONS {
        number(body.len(), &mut code);
        code.extend_from_slice(&body);
    }
    let mut functions = vec![FUNCTIONS as u8];
    functions.extend([0; FUNCTIONS]);
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (section, content) in [(1, &[1, 0x60, 1, 0x7f, 0][..]), (3, &functions), (10, &code)] {
        module.push(section);
        number(content.len(), &mut module);
        module.extend_from_slice(content);
    }
    module
}
