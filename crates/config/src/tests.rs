//! The machine description against the `toml` crate, and each mistake with its sentence.

use proptest::prelude::*;

use crate::vm::{MAX_COMMAND_LINE, MAX_CPUS, MAX_MEMORY_MIB, MAX_MODULES, MAX_PROCESSOR, MAX_WEIGHT, MIN_MEMORY_MIB};
use crate::{Config, Console, ErrorKind, Machine, ModuleEntry, SerialPort, Vm};

const FULL: &str = r#"# a comment
[[vm]]   # another
name = "linux"
kernel = "vmlinuz"
initrd = "initrd.img"
command-line = "console=ttyS0 a=\"b c\" \\ \t\u00e9\U0001F600"
memory-mib = 1_024
cpus = 2
weight = 3
pin = [ 1, # not 0
  3, ]
exclusive = true
nested = false
console = "com3"

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
        assert_eq!((linux.weight, linux.pin, linux.exclusive, linux.nested), (3, Some(0b1010), true, false));
        assert_eq!(linux.console, Console::Port(SerialPort::Com3));
        let xen = config.vm("xen").unwrap();
        assert_eq!((xen.weight, xen.pin, xen.exclusive, xen.nested), (1, None, false, true));
        assert_eq!(xen.console, Console::Shared);
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
        ("[[vm]]\nname = \"../a\"\n".into(), 2, "name", ErrorKind::Expected("a name of letters, digits, - and _")),
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
        (format!("{vm}weight = 0\n"), 5, "weight", ErrorKind::OutOfRange { min: 1, max: MAX_WEIGHT }),
        (format!("{vm}pin = []\n"), 5, "pin", ErrorKind::Expected("a whole decimal number")),
        (format!("{vm}pin = 1\n"), 5, "pin", ErrorKind::Expected("a list in brackets")),
        (format!("{vm}pin = [1 2]\n"), 5, "pin", ErrorKind::Expected("a comma or ]")),
        (format!("{vm}pin = [64]\n"), 5, "pin", ErrorKind::OutOfRange { min: 0, max: MAX_PROCESSOR }),
        (format!("{vm}nested = 1\n"), 5, "nested", ErrorKind::Expected("true or false")),
        (format!("{vm}nested = truely\n"), 5, "nested", ErrorKind::Expected("the end of the line")),
        (format!("{vm}exclusive = true\n{vm}"), 5, "exclusive", ErrorKind::NotPinned),
        (format!("{vm}console = \"com5\"\n"), 5, "console", CONSOLE),
        (format!("{vm}modules = [{{ command-line = \"\" }}]\n"), 5, "file", ErrorKind::MissingKey),
    ];
    for (text, line, key, kind) in cases {
        let error = Config::parse(&text).unwrap_err();
        assert_eq!((error.line, error.key.as_str(), error.kind), (line, key, kind), "{text}");
        let sentence = error.to_string();
        assert!(sentence.starts_with(&format!("line {line}")) && sentence.contains(key), "{sentence}");
    }
}

const CONSOLE: ErrorKind = ErrorKind::Expected("\"shared\", \"none\" or \"com1\" to \"com4\"");

/// What the machine does not have, with the line and key that must change. It has three processors, 100 MiB, COM1 and
/// COM2 are the image's, and there is one file.
#[test]
fn what_the_machine_lacks() {
    let vm = |name: &str, more: &str| format!("[[vm]]\nname = \"{name}\"\nmemory-mib = 40\n{more}");
    let ports = [Some(SerialPort::Com1), Some(SerialPort::Com2)];
    let machine = Machine { processors: 3, memory_mib: 100, ports, has_file: &|name| name == "there" };
    let read = |text: &str| Config::new().read_for(text, &machine);
    let cases = [
        (vm("a", "kernel = \"there\"\ninitrd = \"not\"\n"), 5, "initrd", ErrorKind::NoFile),
        (vm("a", "kernel = \"not\"\n"), 4, "kernel", ErrorKind::NoFile),
        (vm("a", "modules = [{ file = \"not\" }]\n"), 4, "modules", ErrorKind::NoFile),
        (vm("a", "cpus = 40\n") + &vm("b", "cpus = 25\n"), 8, "cpus", ErrorKind::TooManyCpus { limit: 64 }),
        (vm("a", "cpus = 64\n") + &vm("b", ""), 5, "cpus", ErrorKind::TooManyCpus { limit: 64 }),
        (vm("a", "") + &vm("b", "") + &vm("c", ""), 9, "memory-mib", ErrorKind::TooMuchMemory { mib: 100 }),
        (vm("a", "pin = [2, 3]\n"), 4, "pin", ErrorKind::NoProcessor { number: 3, processors: 3 }),
        (
            vm("a", "pin = [0, 1]\nexclusive = true\n") + &vm("b", "pin = [2, 1]\nexclusive = true\n"),
            9,
            "pin",
            ErrorKind::NotExclusive { number: 1 },
        ),
        (vm("a", "pin = [1]\nexclusive = true\n") + &vm("b", "pin = [1]\n"), 9, "pin", ErrorKind::NowhereToRun),
        (vm("a", "pin = [1]\n") + &vm("b", "pin = [1]\nexclusive = true\n"), 4, "pin", ErrorKind::NowhereToRun),
        (vm("a", "") + &vm("b", "pin = [0, 1, 2]\nexclusive = true\n"), 1, "pin", ErrorKind::NowhereToRun),
        (vm("a", "console = \"com2\"\n"), 4, "console", ErrorKind::PortTaken),
        (vm("a", "console = \"com3\"\n") + &vm("b", "console = \"com3\"\n"), 8, "console", ErrorKind::PortTaken),
    ];
    for (text, line, key, kind) in cases {
        let error = read(&text).unwrap_err();
        assert_eq!((error.line, error.key.as_str(), error.kind), (line, key, kind), "{text}");
        assert!(error.to_string().starts_with(&format!("line {line}, key {key}: ")), "{error}");
    }
    let both = vm("a", "pin = [0, 2]\nconsole = \"com3\"\n") + &vm("b", "pin = [1]\nexclusive = true\n");
    assert_eq!(read(&both), Ok(()));
}

/// Who is not pinned runs where nobody has a processor for himself; who is, only where he is.
#[test]
fn processors_of_each() {
    let text = "[[vm]]\nname = \"a\"\nmemory-mib = 2\n[[vm]]\nname = \"b\"\nmemory-mib = 2\npin = [1]\nexclusive = true\n\
                [[vm]]\nname = \"c\"\nmemory-mib = 2\npin = [1, 2]\n";
    let config = Config::parse(text).unwrap();
    assert_eq!([0, 1, 2].map(|index| config.processors_of(index, 4)), [0b1101, 0b0010, 0b0100]);
}

/// There is room for eight; the next is told so.
#[test]
fn too_many_machines() {
    let text: String =
        (0..9).map(|index| format!("[[vm]]\nname = \"{index}\"\nkernel = \"k\"\nmemory-mib = 2\n")).collect();
    let error = Config::parse(&text).unwrap_err();
    assert_eq!((error.line, error.kind), (33, ErrorKind::TooMany { limit: 8 }));
}

fn any_vm(index: usize) -> impl Strategy<Value = Vm> {
    let text = |max| proptest::collection::vec(any::<char>().prop_filter("NUL", |c| *c != '\0'), 0..max);
    (
        text(60),
        proptest::option::of("[a-z/ \"\\\\.-]{1,40}"),
        proptest::collection::vec(("[a-z\"\t]{1,20}", "\\PC{0,40}"), 0..=MAX_MODULES),
        MIN_MEMORY_MIB..=MAX_MEMORY_MIB,
        1..=MAX_CPUS,
        (1..=MAX_WEIGHT, proptest::option::of(1..=u64::MAX), any::<bool>(), any::<bool>(), console()),
    )
        .prop_map(
            move |(command_line, initrd, modules, memory_mib, cpus, (weight, pin, exclusive, nested, console))| Vm {
                name: heapless::String::try_from(format!("vm-{index}_A").as_str()).unwrap(),
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
                weight,
                pin,
                exclusive: exclusive && pin.is_some(),
                nested,
                console,
            },
        )
}

fn console() -> impl Strategy<Value = Console> {
    prop_oneof![Just(Console::Shared), Just(Console::None), Just(Console::Port(SerialPort::Com4))]
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
            prop_assert_eq!(vm["nested"].as_bool(), Some(expected.nested));
            let pin = vm.get("pin").and_then(toml::Value::as_array).map_or(0, Vec::len);
            prop_assert_eq!(pin, expected.pin.unwrap_or(0).count_ones() as usize);
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
        Just("pin = [0,"), Just("1"), Just("nested = true\n"), Just("console = \"none\"\n"),
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
