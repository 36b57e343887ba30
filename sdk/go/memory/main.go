// Command memory gives a command that Go built for WASI preview 1 a memory of a fixed size:
//
//	go run mentat.internal/sdk/memory -mib 32 agent.wasm
//
// Go's runtime takes every byte behind its data for its own and asks for more at the end. The adapter to WASI 0.2 keeps its state
// in pages that it adds when it is first called: the next time Go asks for memory, it believes that these are its own and writes over
// them. With all of its memory from the start Go never asks, and what the adapter adds stays the adapter's. A program that needs
// more ends as one that is out of memory.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
)

const (
	pagesPerMiB = 16
	// What the adapter adds: a page for its state and one for its stack.
	adapterPages = 2
	// The largest memory that 32-bit addresses have.
	maxPages      = 1 << 16
	memorySection = 5
)

var errForm = errors.New("it is no module with one memory of its own")

func main() {
	mib := flag.Uint64("mib", 32, "memory of the program, MiB")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: memory [-mib N] MODULE")
		os.Exit(2)
	}
	if err := rewrite(flag.Arg(0), *mib*pagesPerMiB); err != nil {
		fmt.Fprintf(os.Stderr, "error: %s: %v\n", flag.Arg(0), err)
		os.Exit(1)
	}
}

func rewrite(path string, pages uint64) error {
	module, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	changed, err := fix(module, pages)
	if err != nil {
		return err
	}
	return os.WriteFile(path, changed, 0o644)
}

// fix sets the limits of the module's memory.
func fix(module []byte, pages uint64) ([]byte, error) {
	header := []byte("\x00asm\x01\x00\x00\x00")
	if !bytes.HasPrefix(module, header) {
		return nil, errForm
	}
	if pages > maxPages-adapterPages {
		return nil, errors.New("that is more memory than a module can have")
	}
	for at := len(header); at < len(module); {
		id := module[at]
		size, length := binary.Uvarint(module[at+1:])
		body := at + 1 + length
		if length <= 0 || size > uint64(len(module)-body) {
			return nil, errForm
		}
		end := body + int(size)
		if id == memorySection {
			needed, err := initial(module[body:end])
			if err != nil {
				return nil, err
			}
			if needed > pages {
				return nil, fmt.Errorf("the program needs %d MiB to start", (needed+pagesPerMiB-1)/pagesPerMiB)
			}
			limits := binary.AppendUvarint([]byte{1, 1}, pages)
			limits = binary.AppendUvarint(limits, pages+adapterPages)
			changed := append(append([]byte{}, module[:at]...), memorySection, byte(len(limits)))
			return append(append(changed, limits...), module[end:]...), nil
		}
		at = end
	}
	return nil, errForm
}

// initial is the number of pages that the one memory of a section has at the start.
func initial(section []byte) (uint64, error) {
	if len(section) < 3 || section[0] != 1 || section[1] > 1 {
		return 0, errForm
	}
	pages, length := binary.Uvarint(section[2:])
	if length <= 0 {
		return 0, errForm
	}
	return pages, nil
}
