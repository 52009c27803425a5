package vm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
)

// Accelerators.
const (
	Auto = "auto" // KVM if it boots guests here, else TCG
	KVM  = "kvm"
	TCG  = "tcg"
)

// answers remembers for one start of the machine and one QEMU whether KVM boots guests. There are machines where
// /dev/kvm is there and every guest hangs; the first guest finds that out.
type answers struct {
	path string // "" remembers nothing
	boot string
	qemu string
}

type answer struct {
	Boot string `json:"boot"`
	QEMU string `json:"qemu"`
	KVM  bool   `json:"kvm"`
}

// newAnswers keeps them in a file of the directory.
func newAnswers(dir, qemu string) answers {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	info, serr := os.Stat(qemu)
	if err != nil || serr != nil || dir == "" {
		return answers{}
	}
	return answers{filepath.Join(dir, "kvm.json"), strings.TrimSpace(string(boot)), qemu + " " + info.ModTime().UTC().String()}
}

// get returns the answer, if it is known.
func (a answers) get() (kvm, known bool) {
	b, err := os.ReadFile(a.path)
	if err != nil {
		return false, false
	}
	var found answer
	if json.Unmarshal(b, &found) != nil || found.Boot != a.boot || found.QEMU != a.qemu {
		return false, false
	}
	return found.KVM, true
}

// put remembers an answer. Where that fails the next guest tries again, and nothing else is lost.
func (a answers) put(kvm bool) {
	if a.path == "" {
		return
	}
	b, err := json.Marshal(answer{a.boot, a.qemu, kvm})
	if err != nil || os.MkdirAll(filepath.Dir(a.path), 0o755) != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(a.path), ".kvm-")
	if err != nil {
		return
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err != nil || cerr != nil || os.Rename(f.Name(), a.path) != nil {
		os.Remove(f.Name())
	}
}

// BootsUnderKVM tells whether KVM boots guests, as the first one found out since the machine's start. cache is Config's.
func BootsUnderKVM(cache string) (boots, known bool) {
	qemu, err := QEMU()
	if err != nil {
		return false, false
	}
	return newAnswers(cache, qemu).get()
}

// usable tells whether /dev/kvm can be opened.
func usable() bool {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// attempts are the accelerators to try, in order.
func attempts(want string, usable func() bool, a answers) []string {
	if want != Auto && want != "" {
		return []string{want}
	}
	if !usable() {
		return []string{TCG}
	}
	switch kvm, known := a.get(); {
	case !known:
		return []string{KVM, TCG}
	case kvm:
		return []string{KVM}
	}
	return []string{TCG}
}
