# Boots a Linux kernel that is not compressed: a compressed one takes the emulated processor a minute to unpack.
#
# The disk holds, from sector 1 on, LOADS (sector, sectors, address to load to), and the pieces that it names: boot_params with
# the command line, the kernel as it is to lie in memory at 16 MiB, the initial RAM disk.
.set LOADS, 0x7e00
.set BOUNCE_SEGMENT, 0x2000
.set SECTORS_AT_ONCE, 64
.set BOOT_PARAMS, 0x10000
.set KERNEL, 0x1000000
.set TABLES, 0x70000
.code16
.globl _start
_start:
    ljmp $0, $start
start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    cld
    movb %dl, drive
    movw $0x2401, %ax
    int $0x15
    movw $LOADS >> 4, packet + 6
    movl $1, packet + 8
    movw $1, packet + 2
    call read
    movw $BOUNCE_SEGMENT, packet + 6
    movw $LOADS, %bp
piece:
    movl (%bp), %eax
    movl %eax, packet + 8
    movl 4(%bp), %ebx
    movl 8(%bp), %edi
    testl %ebx, %ebx
    jz memory_map
chunk:
    movl $SECTORS_AT_ONCE, %ecx
    cmpl %ecx, %ebx
    jae 1f
    movl %ebx, %ecx
1:  movw %cx, packet + 2
    call read
    addl %ecx, packet + 8
    subl %ecx, %ebx
    call copy
    testl %ebx, %ebx
    jnz chunk
    addw $12, %bp
    jmp piece

read:
    movb $0x42, %ah
    movb drive, %dl
    movw $packet, %si
    int $0x13
    jc failed
    ret
failed:
    movb $'E', %al
    movw $0x3f8, %dx
    outb %al, %dx
    hlt
    jmp failed

# %ecx sectors from the bounce buffer to %edi, which moves on. Only in protected mode may segments be that long.
copy:
    pushl %ecx
    cli
    lgdt gdt_pointer
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    movw $0x08, %dx
    movw %dx, %ds
    movw %dx, %es
    movl $BOUNCE_SEGMENT << 4, %esi
    shll $7, %ecx
    addr32 rep movsl
    andb $0xfe, %al
    movl %eax, %cr0
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    sti
    popl %ecx
    ret

# The BIOS's map goes to boot_params: the number of entries to 0x1e8, entries of 20 bytes to 0x2d0.
memory_map:
    movw $BOOT_PARAMS >> 4, %ax
    movw %ax, %es
    movw $0x2d0, %di
    xorl %ebx, %ebx
entry:
    movl $0xe820, %eax
    movl $0x534d4150, %edx
    movl $20, %ecx
    int $0x15
    jc 1f
    incb %es:0x1e8
    addw $20, %di
    testl %ebx, %ebx
    jnz entry
1:

# Long mode, the first GiB mapped to itself in pages of 2 MiB.
    cli
    movw $TABLES >> 4, %ax
    movw %ax, %es
    xorw %di, %di
    xorl %eax, %eax
    movw $0xc00, %cx
    rep stosl
    movl $TABLES + 0x1003, %es:0
    movl $TABLES + 0x2003, %es:0x1000
    movw $0x2000, %di
    movl $0x83, %eax
1:  movl %eax, %es:(%di)
    addw $8, %di
    addl $0x200000, %eax
    cmpw $0x3000, %di
    jne 1b
    movl $0x20, %eax
    movl %eax, %cr4
    movl $TABLES, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orw $0x100, %ax
    wrmsr
    lgdt gdt_pointer
    movl %cr0, %eax
    orl $0x80000001, %eax
    movl %eax, %cr0
    ljmp $0x10, $long_mode
.code64
long_mode:
    movw $0x18, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $BOOT_PARAMS, %esi
    movl $KERNEL, %eax
    jmp *%rax

drive:  .byte 0
    .balign 8
packet: .byte 16, 0
        .word 0, 0, 0
        .long 0, 0
gdt:    .quad 0, 0x00cf92000000ffff, 0x00af9a000000ffff, 0x00cf92000000ffff
gdt_pointer:
        .word 31
        .long gdt
    .org 510
    .word 0xaa55
