# A guest that dirties memory and disk faster than a live saved state can follow.
#
# It fills all memory above 1 MiB with random contents once, prints "B00000000", then for ever: changes every page of
# memory, writes sixteen times 127 sectors anywhere behind the first MiB of its disk, counts one up and prints the count
# ("0000002a" and a line end) on COM1. Every sector begins with the count and the number of the first sector that was
# written together with it. A write that fails prints "XE" and the count.
.code16
.set BUFFER, 0x10000
.set BUFFER_BYTES, 0x10000
.set SECTORS, 127
.set WRITES_PER_ROUND, 16
.set MEMORY, 0x100000
.set DISK_PARAMETERS, 0x9000
.globl _start
_start:
    ljmp $0, $start
start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb %dl, drive
    movw $0x3fb, %dx
    movb $3, %al
    outb %al, %dx
    inb $0x92, %al
    orb $2, %al
    outb %al, $0x92
    sti
    cld
    call measure
    call fill_memory
    movb $'B', %al
    call print
    call print_count
round:
    incl count
    call change_memory
    movw $WRITES_PER_ROUND, %cx
write:
    call write_somewhere
    loop write
    call print_count
    jmp round

# Finds the end of memory, in pieces of 64 KiB above 16 MiB or of 1 KiB above 1 MiB, less one MiB for ACPI's tables, and
# the places on the disk where a write may begin.
measure:
    movw $0xe801, %ax
    int $0x15
    movzwl %ax, %eax
    movzwl %bx, %ebx
    shll $10, %eax
    shll $16, %ebx
    leal (%eax, %ebx), %eax
    movl %eax, memory_end
    movb drive, %dl
    movw $DISK_PARAMETERS, %si
    movw $30, (%si)
    movb $0x48, %ah
    int $0x13
    movl DISK_PARAMETERS + 16, %eax
    subl $(2048 + SECTORS), %eax
    movl %eax, places
    ret

fill_memory:
    movl $BUFFER, %edi
    call reach_all_memory
fill:
    call random
    addr32 stosl
    cmpl $(BUFFER + BUFFER_BYTES), %edi
    jb fill
    movl $MEMORY, %edi
copy:
    call reach_all_memory
    movl $BUFFER, %esi
    movl $(BUFFER_BYTES / 4), %ecx
    addr32 rep movsl
    cmpl memory_end, %edi
    jb copy
    ret

change_memory:
    call reach_all_memory
    movl $MEMORY, %edi
    movl count, %eax
change:
    addr32 movl %eax, (%edi)
    addl $4096, %edi
    cmpl memory_end, %edi
    jb change
    ret

write_somewhere:
    pushw %cx
    call random
    xorl %edx, %edx
    divl places
    addl $2048, %edx
    movl %edx, packet_sector
    call reach_all_memory
    movl count, %eax
    movl $BUFFER, %edi
mark:
    addr32 movl %eax, (%edi)
    addr32 movl %edx, 4(%edi)
    addl $512, %edi
    cmpl $(BUFFER + SECTORS * 512), %edi
    jb mark
    movb drive, %dl
    movw $0x4300, %ax
    movw $packet, %si
    int $0x13
    jnc written
    movb $'X', %al
    call print
    movb $'E', %al
    call print
    call print_count
written:
    cld
    popw %cx
    ret

random:
    imull $1664525, seed, %eax
    addl $1013904223, %eax
    movl %eax, seed
    roll $16, %eax
    ret

print_count:
    movl count, %ebx
    movw $8, %cx
digit:
    roll $4, %ebx
    movb %bl, %al
    andb $15, %al
    addb $'0', %al
    cmpb $'9', %al
    jbe decimal
    addb $('a' - '9' - 1), %al
decimal:
    call print
    loop digit
    movb $'\n', %al
print:
    pushw %dx
    pushw %ax
    movw $0x3fd, %dx
busy:
    inb %dx, %al
    testb $0x20, %al
    jz busy
    popw %ax
    movw $0x3f8, %dx
    outb %al, %dx
    popw %dx
    ret

# DS and ES reach all memory until the BIOS narrows them, hence again each time.
reach_all_memory:
    cli
    lgdt gdt_pointer
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    movw $8, %bx
    movw %bx, %ds
    movw %bx, %es
    andb $0xfe, %al
    movl %eax, %cr0
    xorw %bx, %bx
    movw %bx, %ds
    movw %bx, %es
    sti
    ret
gdt:
    .quad 0, 0x00cf92000000ffff
gdt_pointer:
    .word 15
    .long gdt
drive:
    .byte 0
count:
    .long 0
seed:
    .long 0x12345678
memory_end:
    .long 0
places:
    .long 0
packet:
    .byte 16, 0
    .word SECTORS, 0, BUFFER / 16
packet_sector:
    .long 0, 0
    .org 510
    .word 0xaa55
