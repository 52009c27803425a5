package kernel

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"strings"
)

// suffixes are how names of modules end: as they are, and compressed.
var suffixes = [...]string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"}

// moduleName returns the name of the module in a file, as modprobe knows it: "nf_tables" of "kernel/net/nf-tables.ko.xz";
// and "" of a file that is none.
func moduleName(path string) string {
	base := path[strings.LastIndexByte(path, '/')+1:]
	for _, s := range suffixes {
		if name, ok := strings.CutSuffix(base, s); ok {
			return canonical(name)
		}
	}
	return ""
}

// canonical makes one of the two spellings of a module's name.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// ReadModule returns a module, unpacked.
func ReadModule(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b, err = unpackModule(b)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", path, err)
	}
	return b, nil
}

func unpackModule(b []byte) ([]byte, error) {
	if bytes.HasPrefix(b, []byte(elf.ELFMAG)) {
		return b, nil
	}
	r, err := unpack(b)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxImage))
}

// modinfo is what a module says of itself.
type modinfo struct {
	depends []string
	soft    []string // to be loaded before, where they exist
	aliases []string
}

// parseModinfo reads the section .modinfo of an unpacked module.
func parseModinfo(module []byte) (modinfo, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return modinfo{}, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return modinfo{}, fmt.Errorf("it has no section .modinfo")
	}
	text, err := section.Data()
	if err != nil {
		return modinfo{}, err
	}
	var m modinfo
	for line := range strings.SplitSeq(string(text), "\x00") {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				if name != "" {
					m.depends = append(m.depends, canonical(name))
				}
			}
		case "alias":
			m.aliases = append(m.aliases, value)
		case "softdep":
			m.soft = append(m.soft, softdep(value)...)
		}
	}
	return m, nil
}

// softdep returns the modules that "pre: a b post: c" wants to be loaded before.
func softdep(text string) []string {
	var names []string
	pre := false
	for _, word := range strings.Fields(text) {
		switch word {
		case "pre:", "post:":
			pre = word == "pre:"
		default:
			if pre {
				names = append(names, canonical(word))
			}
		}
	}
	return names
}
