//! The machine description against the `toml` crate, and each mistake with its sentence.

use proptest::prelude::*;

use crate::vm::{MAX_COMMAND_LINE, MAX_CPUS, MAX_MEMORY_MIB, MAX_MODULES, MIN_MEMORY_MIB};
use crate::{Config, ErrorKind, ModuleEntry, Vm};

const FULL: &str = r#"# a comment
[[vm]]   # another
name = "linux"
kernel = "vmlinuz"
initrd = "initrd.img"
command-line = "console=ttyS0 a=\"b c\" \\ \t\u00e9\U0001F600"
memory-mib = 1_024
cpus = 2

[[ vm ]]
name = "xen"
kernel = "xen"
modules = [
  { file = "vmlinuz", command-line = "vmlinuz ro" }, # dom0
  { file = "initrd.img" }
]
memory-mib=64
"#;

/// Every key, comments, escapes, defaults.
#[test]
fn a_full_description() {
    for text in [FULL.to_owned(), FULL.replace('\n', "\r\n"), format!("\u{feff}{FULL}")] {
        let config = Config::parse(&text).unwrap();
        let linux = config.vm("linux").unwrap();
        assert_eq!((linux.kernel.as_deref(), linux.initrd.as_deref()), (Some("vmlinuz"), Some("initrd.img")));
        assert_eq!(linux.command_line, "console=ttyS0 a=\"b c\" \\ \té\u{1f600}");
        assert_eq!((linux.memory_mib, linux.cpus), (1024, 2));
        let xen = config.vm("xen").unwrap();
        assert_eq!((xen.cpus, xen.initrd.as_deref(), xen.command_line.as_str()), (1, None, ""));
        let modules: Vec<_> = xen.modules.iter().map(|m| (m.file.as_str(), m.command_line.as_str())).collect();
        assert_eq!(modules, [("vmlinuz", "vmlinuz ro"), ("initrd.img", "initrd.img")]);
    }
}

/// What a person gets wrong, with the line and key that the sentence must name.
#[test]
fn mistakes_name_line_and_key() {
    let vm = "[[vm]]\nname = \"a\"\nkernel = \"k\"\nmemory-mib = 64\n";
    let long = "x".repeat(MAX_COMMAND_LINE + 1);
    let many = "{ file = \"f\" },".repeat(MAX_MODULES + 1);
    let cases: Vec<(String, u32, &str, ErrorKind)> = vec![
        (String::new(), 1, "", ErrorKind::NoVm),
        ("# nothing\n\n".into(), 3, "", ErrorKind::NoVm),
        ("cpus = 1\n".into(), 1, "cpus", ErrorKind::OutsideVm),
        ("[vm]\n".into(), 1, "", ErrorKind::UnknownTable),
        ("[[disk]]\n".into(), 1, "", ErrorKind::UnknownTable),
        ("[[vm]]\nname = \"a\"\n\n[[vm]]\n".into(), 1, "memory-mib", ErrorKind::MissingKey),
        (format!("{vm}cpu = 1\n"), 5, "cpu", ErrorKind::UnknownKey),
        (format!("{vm}name = \"b\"\n"), 5, "name", ErrorKind::DuplicateKey),
        (format!("{vm}{vm}"), 6, "name", ErrorKind::DuplicateName),
        (vm.repeat(5), 6, "name", ErrorKind::DuplicateName),
        (format!("{vm}cpus = 0\n"), 5, "cpus", ErrorKind::OutOfRange { min: 1, max: MAX_CPUS }),
        (format!("{vm}cpus = 99999999999999999999\n"), 5, "cpus", ErrorKind::OutOfRange { min: 1, max: MAX_CPUS }),
        (format!("{vm}cpus = \"1\"\n"), 5, "cpus", ErrorKind::Expected("a whole decimal number")),
        (format!("{vm}cpus = 1.5\n"), 5, "cpus", ErrorKind::Expected("a whole decimal number")),
        (format!("{vm}cpus = 01\n"), 5, "cpus", ErrorKind::Expected("a whole decimal number")),
        (format!("{vm}cpus = 1 2\n"), 5, "cpus", ErrorKind::Expected("the end of the line")),
        (format!("{vm}cpus 1\n"), 5, "cpus", ErrorKind::Expected("=")),
        (format!("{vm}initrd = \"\"\n"), 5, "initrd", ErrorKind::Empty),
        (format!("{vm}initrd = x\n"), 5, "initrd", ErrorKind::Expected("a string in double quotes")),
        (format!("{vm}initrd = \"x\n"), 5, "initrd", ErrorKind::Expected("the string's closing quote")),
        (format!("{vm}initrd = \"C:\\x\"\n"), 5, "initrd", ErrorKind::BadEscape),
        (format!("{vm}initrd = \"\\ud800\"\n"), 5, "initrd", ErrorKind::BadEscape),
        (format!("{vm}initrd = \"\\u0000\"\n"), 5, "initrd", ErrorKind::BadCharacter),
        (format!("{vm}initrd = \"\u{1}\"\n"), 5, "initrd", ErrorKind::BadCharacter),
        (format!("{vm}command-line = \"{long}\"\n"), 5, "command-line", ErrorKind::TooLong { limit: MAX_COMMAND_LINE }),
        (format!("{vm}modules = [{many}]\n"), 5, "modules", ErrorKind::TooMany { limit: MAX_MODULES }),
        (format!("{vm}modules = [\n\n{{ fil = \"\" }}]\n"), 7, "fil", ErrorKind::UnknownKey),
        (format!("{vm}modules = [{{ command-line = \"\" }}]\n"), 5, "file", ErrorKind::MissingKey),
    ];
    for (text, line, key, kind) in cases {
        let error = Config::parse(&text).unwrap_err();
        assert_eq!((error.line, error.key.as_str(), error.kind), (line, key, kind), "{text}");
        let sentence = error.to_string();
        assert!(sentence.starts_with(&format!("line {line}")) && sentence.contains(key), "{sentence}");
    }
}

/// There is room for four; the fifth is told so.
#[test]
fn too_many_machines() {
    let text: String =
        (0..5).map(|index| format!("[[vm]]\nname = \"{index}\"\nkernel = \"k\"\nmemory-mib = 2\n")).collect();
    let error = Config::parse(&text).unwrap_err();
    assert_eq!((error.line, error.kind), (17, ErrorKind::TooMany { limit: 4 }));
}

fn any_vm(index: usize) -> impl Strategy<Value = Vm> {
    let text = |max| proptest::collection::vec(any::<char>().prop_filter("NUL", |c| *c != '\0'), 0..max);
    (
        text(60),
        proptest::option::of("[a-z/ \"\\\\.-]{1,40}"),
        proptest::collection::vec(("[a-z\"\t]{1,20}", "\\PC{0,40}"), 0..=MAX_MODULES),
        MIN_MEMORY_MIB..=MAX_MEMORY_MIB,
        1..=MAX_CPUS,
    )
        .prop_map(move |(command_line, initrd, modules, memory_mib, cpus)| Vm {
            name: heapless::String::try_from(format!("vm {index}").as_str()).unwrap(),
            kernel: Some(heapless::String::try_from("folder/kernel \"k\"").unwrap()),
            kernel_name: heapless::String::try_from("k").unwrap(),
            initrd: initrd.map(|initrd| heapless::String::try_from(initrd.as_str()).unwrap()),
            modules: modules
                .iter()
                .map(|(file, told)| ModuleEntry {
                    file: heapless::String::try_from(file.as_str()).unwrap(),
                    command_line: heapless::String::try_from(told.as_str()).unwrap(),
                })
                .collect(),
            command_line: command_line.into_iter().collect(),
            memory_mib,
            cpus,
        })
}

proptest! {
    /// What is written is read back, and the toml crate reads the same.
    #[test]
    fn written_and_read_back(first in any_vm(0), second in any_vm(1)) {
        let config = Config { vms: [first, second].into_iter().collect() };
        let mut text = String::new();
        config.write(&mut text).unwrap();
        prop_assert_eq!(&Config::parse(&text).unwrap(), &config);
        let table: toml::Table = text.parse().unwrap();
        for (vm, expected) in table["vm"].as_array().unwrap().iter().zip(&config.vms) {
            prop_assert_eq!(vm["command-line"].as_str(), Some(expected.command_line.as_str()));
            prop_assert_eq!(vm["memory-mib"].as_integer(), Some(i64::from(expected.memory_mib)));
            let modules = vm.get("modules").and_then(toml::Value::as_array).map_or(0, Vec::len);
            prop_assert_eq!(modules, expected.modules.len());
        }
    }

    /// A subset: whatever is taken here, TOML takes too. Pieces of good texts in any order find the odd corners.
    #[test]
    fn what_is_taken_is_toml(pieces in proptest::collection::vec(prop_oneof![
        Just("[[vm]]\n"), Just("name = \"a\"\n"), Just("kernel = \"k\" # c\n"), Just("memory-mib = 2"), Just("\n"),
        Just("cpus = 1_0\n"), Just("cpus = 1__0\n"), Just("command-line = \"\t\\\"\"\r\n"), Just("\r"), Just(" "), Just("#\u{7f}"),
        Just("modules = ["), Just("{ file = \"f\" }"), Just(","), Just("]"), Just("initrd = \"\u{7f}\""), Just("_"),
    ], 0..12)) {
        let text = format!("[[vm]]\nname = \"x\"\nkernel = \"k\"\nmemory-mib = 2\n{}", pieces.concat());
        if Config::parse(&text).is_ok() {
            prop_assert!(text.parse::<toml::Table>().is_ok(), "{:?}", text);
        }
    }

    /// Any text: a description or an error, never a panic.
    #[test]
    fn any_text(text in "(\\PC|[\\n\\[\\]={}\"\\\\]){0,200}") {
        let _ = Config::parse(&text);
    }
}
